// The C half of the engine package: everything that must run on the C side of a cgo crossing, so
// that one guest call costs one crossing and one host call another.
#ifndef SIDECAR_SHIM_H
#define SIDECAR_SHIM_H

#include "wasmtime_api.h"

enum { SC_MAX_ARGS = 8, SC_MAX_TYPES = 24 };

typedef struct sc_engine sc_engine; // An engine and the thread that ticks its epoch.
typedef struct sc_types sc_types;   // The import or export types of a module.

typedef struct sc_options {
  uint64_t tick_ns;
  uint64_t memory_reservation;
  size_t stack_bytes;
} sc_options;

typedef struct sc_type {
  const char *module, *name; // Not NUL-terminated, owned by the sc_types.
  size_t module_len, name_len;
  uint32_t nparams, nresults; // May exceed SC_MAX_TYPES: then the arrays are cut.
  uint8_t kind;
  uint8_t params[SC_MAX_TYPES], results[SC_MAX_TYPES];
} sc_type;

// One store with one instance. Go reads and writes the plain fields directly while it owns the
// instance; no lock is needed, since a store is used by one thread at a time.
typedef struct sc_instance {
  void *self; // The Go *Instance, pinned while this lives.
  sc_engine *engine;
  wasmtime_store_t *store;
  wasmtime_context_t *ctx;
  wasmtime_instance_t instance;
  wasmtime_memory_t memory;
  uint8_t *mem_base; // Refreshed before each host call and after each guest call.
  size_t mem_size;
  uint64_t ticks; // Epochs that an outermost call may last; 0 is no limit.
  uint32_t depth;
  uint32_t nfuncs;
  bool has_memory;
  uint32_t nglobals;
  wasmtime_global_t *globals; // That snapshots hold; found when the first is needed.
  wasmtime_func_t *funcs; // store_id 0: the module has no such export.
  uint64_t args[SC_MAX_ARGS];
  uint64_t result;
  int trap_code;   // Of the last failed call; -1 when it has none.
  char *error;     // Text of the last failure, malloc'ed, owned by the instance.
  size_t error_len;
} sc_instance;

typedef struct sc_name {
  const char *data;
  size_t len;
} sc_name;

typedef struct sc_live {
  int64_t engines, modules, pres, instances;
} sc_live;

// Functions that can fail return NULL or nonzero and leave a malloc'ed text in *error.
sc_engine *sc_engine_new(const sc_options *options, char **error);
void sc_engine_delete(sc_engine *engine);
int sc_engine_running(sc_engine *engine);

wasmtime_module_t *sc_module_new(sc_engine *engine, const uint8_t *wasm, size_t len, char **error);
wasmtime_module_t *sc_module_load(sc_engine *engine, const uint8_t *code, size_t len, char **error);
wasmtime_module_t *sc_module_load_file(sc_engine *e, const char *path, char **error);
int sc_module_save(wasmtime_module_t *module, char **data, size_t *len, char **error);
void sc_module_delete(wasmtime_module_t *module);
int sc_wat(const char *text, size_t len, char **data, size_t *out, char **error);

sc_types *sc_imports(wasmtime_module_t *module);
sc_types *sc_exports(wasmtime_module_t *module);
size_t sc_types_len(const sc_types *types);
void sc_types_at(const sc_types *types, size_t i, sc_type *out);
void sc_types_delete(sc_types *types);

wasmtime_linker_t *sc_linker_new(sc_engine *engine);
// Defines import i of types as host function number index.
int sc_linker_define(wasmtime_linker_t *linker, const sc_types *types, size_t i, uint32_t index,
                     char **error);
wasmtime_instance_pre_t *sc_linker_pre(wasmtime_linker_t *linker, wasmtime_module_t *module,
                                       char **error);
void sc_linker_delete(wasmtime_linker_t *linker);
void sc_pre_delete(wasmtime_instance_pre_t *pre);

// Makes a store with an instance and runs the start section. self is handed to sidecarHostCall.
// NULL only when out of memory; a failed start leaves error set in the instance.
sc_instance *sc_instance_new(sc_engine *engine, uintptr_t self, int64_t memory_bytes,
                             int64_t table_elements, uint64_t ticks);
int sc_instance_start(sc_instance *in, wasmtime_instance_pre_t *pre, const sc_name *funcs,
                      uint32_t nfuncs);
void sc_instance_delete(sc_instance *in);
// Calls function fn with args[0..nargs); 0 leaves result set, 1 leaves error and trap_code set.
int sc_call(sc_instance *in, uint32_t fn, uint32_t nargs);
// A snapshot: an image of the memory, in a file where the system has those, and the globals.
typedef struct sc_snapshot {
  int fd;
  uint8_t *image;
  size_t size;
  uint32_t nglobals;
  wasmtime_val_t *globals;
} sc_snapshot;

int sc_instance_global(sc_instance *in, const char *name, size_t len, uint32_t total);
sc_snapshot *sc_snapshot_take(sc_instance *in);
void sc_snapshot_delete(sc_snapshot *s);
// 1: the memory has another size. 2: the system or the engine refuses.
int sc_snapshot_adopt(sc_instance *in, const sc_snapshot *s);
int sc_snapshot_restore(sc_instance *in, const sc_snapshot *s);
int sc_snapshot_differs(sc_instance *in, const sc_snapshot *s);
int64_t sc_live_snapshots(void);

// The crossing alone: measures what one call into C costs.
uint64_t sc_noop(uint64_t v);

sc_live sc_live_objects(void);

#endif
