#include "shim.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

// Defined in Go: runs host function index for the instance self. Nonzero makes a trap.
extern int32_t sidecarHostCall(void *self, uint32_t index, void *raw);

static _Atomic int64_t live_engines, live_modules, live_pres, live_instances;

sc_live sc_live_objects(void) {
  sc_live l = {live_engines, live_modules, live_pres, live_instances};
  return l;
}

static char *copy_text(const char *data, size_t len) {
  char *text = malloc(len + 1);
  if (text != NULL) {
    memcpy(text, data, len);
    text[len] = 0;
  }
  return text;
}

// Turns err into a text and frees it. True when there was an error.
static bool take_error(wasmtime_error_t *err, char **text) {
  if (err == NULL)
    return false;
  wasm_name_t message = {0};
  wasmtime_error_message(err, &message);
  *text = copy_text(message.data, message.size);
  wasm_byte_vec_delete(&message);
  wasmtime_error_delete(err);
  return true;
}

// ---- engine and epoch ticks ----

struct sc_engine {
  wasm_engine_t *engine;
  uint64_t tick_ns;
  pthread_t thread;
  pthread_mutex_t mu; // Guards the sleep, not the counters.
  pthread_cond_t wake;
  bool stop;
  _Atomic int running;    // Guests inside an outermost call.
  _Atomic uint32_t calls; // Outermost calls ever begun: shows activity between two ticks.
  _Atomic int asleep;
};

static void add_ns(struct timespec *t, uint64_t ns) {
  t->tv_sec += ns / 1000000000u;
  t->tv_nsec += ns % 1000000000u;
  if (t->tv_nsec >= 1000000000) {
    t->tv_nsec -= 1000000000;
    t->tv_sec++;
  }
}

static bool before(const struct timespec *a, const struct timespec *b) {
  return a->tv_sec < b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec < b->tv_nsec);
}

// Ticks every tick_ns while guests run; a tick without a running guest and without a call since the
// last one goes to sleep until guest_enter wakes it. The two sequentially consistent accesses on each
// side (asleep then running here, running then asleep there) make a lost wake-up impossible.
static void *tick(void *arg) {
  sc_engine *e = arg;
  uint32_t seen = 0;
  struct timespec next, now;
  pthread_mutex_lock(&e->mu);
  clock_gettime(CLOCK_MONOTONIC, &next);
  while (!e->stop) {
    uint32_t calls = atomic_load(&e->calls);
    if (calls == seen && atomic_load(&e->running) == 0) {
      atomic_store(&e->asleep, 1);
      while (!e->stop && atomic_load(&e->running) == 0 && atomic_load(&e->asleep))
        pthread_cond_wait(&e->wake, &e->mu);
      atomic_store(&e->asleep, 0);
      clock_gettime(CLOCK_MONOTONIC, &next);
    }
    seen = calls;
    add_ns(&next, e->tick_ns);
    while (!e->stop && pthread_cond_timedwait(&e->wake, &e->mu, &next) == 0) {
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    wasmtime_engine_increment_epoch(e->engine);
    // Late wake-ups (a loaded machine) must not stretch the deadlines.
    for (struct timespec t = next; add_ns(&t, e->tick_ns), before(&t, &now); next = t)
      wasmtime_engine_increment_epoch(e->engine);
  }
  pthread_mutex_unlock(&e->mu);
  return NULL;
}

static void guest_enter(sc_engine *e) {
  atomic_fetch_add(&e->running, 1);
  atomic_fetch_add_explicit(&e->calls, 1, memory_order_relaxed);
  if (atomic_load(&e->asleep)) {
    pthread_mutex_lock(&e->mu);
    atomic_store(&e->asleep, 0);
    pthread_cond_signal(&e->wake);
    pthread_mutex_unlock(&e->mu);
  }
}

static void guest_leave(sc_engine *e) { atomic_fetch_sub(&e->running, 1); }

int sc_engine_running(sc_engine *e) { return atomic_load(&e->running); }

static wasm_config_t *new_config(const sc_options *o) {
  wasm_config_t *config = wasm_config_new();
  wasmtime_config_strategy_set(config, WASMTIME_STRATEGY_CRANELIFT);
  wasmtime_config_cranelift_opt_level_set(config, WASMTIME_OPT_LEVEL_SPEED);
  wasmtime_config_parallel_compilation_set(config, false);
  wasmtime_config_epoch_interruption_set(config, true);
  wasmtime_config_consume_fuel_set(config, false);
  wasmtime_config_max_wasm_stack_set(config, o->stack_bytes);
  // Shared memories are outside the store limiter, 64-bit ones and a second one outside the ABI.
  wasmtime_config_wasm_threads_set(config, false);
  wasmtime_config_wasm_memory64_set(config, false);
  wasmtime_config_wasm_multi_memory_set(config, false);
  wasmtime_config_memory_init_cow_set(config, true);
  if (o->memory_reservation != 0)
    wasmtime_config_memory_reservation_set(config, o->memory_reservation);
  return config;
}

// A process-wide signal must never land on this thread: the Go runtime doesn't know it.
static int start_ticker(sc_engine *e) {
  pthread_condattr_t attr;
  pthread_condattr_init(&attr);
#ifndef __APPLE__
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
#endif
  pthread_mutex_init(&e->mu, NULL);
  pthread_cond_init(&e->wake, &attr);
  pthread_condattr_destroy(&attr);
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 128 * 1024);
  int rc = pthread_create(&e->thread, &small, tick, e);
  pthread_attr_destroy(&small);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  return rc;
}

sc_engine *sc_engine_new(const sc_options *options, char **error) {
  sc_engine *e = calloc(1, sizeof *e);
  if (e == NULL)
    return NULL;
  e->tick_ns = options->tick_ns;
  e->engine = wasm_engine_new_with_config(new_config(options));
  if (e->engine == NULL || start_ticker(e) != 0) {
    *error = copy_text("no engine or no thread for its ticks", 36);
    if (e->engine != NULL)
      wasm_engine_delete(e->engine);
    free(e);
    return NULL;
  }
  live_engines++;
  return e;
}

void sc_engine_delete(sc_engine *e) {
  pthread_mutex_lock(&e->mu);
  e->stop = true;
  pthread_cond_signal(&e->wake);
  pthread_mutex_unlock(&e->mu);
  pthread_join(e->thread, NULL);
  pthread_cond_destroy(&e->wake);
  pthread_mutex_destroy(&e->mu);
  wasm_engine_delete(e->engine);
  free(e);
  live_engines--;
}

// ---- modules ----

wasmtime_module_t *sc_module_new(sc_engine *e, const uint8_t *wasm, size_t len, char **error) {
  wasmtime_module_t *module = NULL;
  wasmtime_error_t *err = wasmtime_module_new(e->engine, wasm, len, &module);
#ifdef __GLIBC__
  malloc_trim(0); // The compiler leaves several times the module's size on the free lists.
#endif
  if (take_error(err, error))
    return NULL;
  live_modules++;
  return module;
}

wasmtime_module_t *sc_module_load(sc_engine *e, const uint8_t *code, size_t len, char **error) {
  wasmtime_module_t *module = NULL;
  if (take_error(wasmtime_module_deserialize(e->engine, code, len, &module), error))
    return NULL;
  live_modules++;
  return module;
}

wasmtime_module_t *sc_module_load_file(sc_engine *e, const char *path, char **error) {
  wasmtime_module_t *module = NULL;
  if (take_error(wasmtime_module_deserialize_file(e->engine, path, &module), error))
    return NULL;
  live_modules++;
  return module;
}

static int take_bytes(wasmtime_error_t *err, wasm_byte_vec_t *bytes, char **data, size_t *len,
                      char **error) {
  if (take_error(err, error))
    return 1;
  *data = copy_text(bytes->data, bytes->size);
  *len = bytes->size;
  wasm_byte_vec_delete(bytes);
  return *data == NULL;
}

int sc_module_save(wasmtime_module_t *module, char **data, size_t *len, char **error) {
  wasm_byte_vec_t bytes = {0};
  return take_bytes(wasmtime_module_serialize(module, &bytes), &bytes, data, len, error);
}

int sc_wat(const char *text, size_t text_len, char **data, size_t *len, char **error) {
  wasm_byte_vec_t bytes = {0};
  return take_bytes(wasmtime_wat2wasm(text, text_len, &bytes), &bytes, data, len, error);
}

void sc_module_delete(wasmtime_module_t *module) {
  wasmtime_module_delete(module);
  live_modules--;
}

struct sc_types {
  bool imports;
  wasm_importtype_vec_t in;
  wasm_exporttype_vec_t out;
};

sc_types *sc_imports(wasmtime_module_t *module) {
  sc_types *t = calloc(1, sizeof *t);
  if (t != NULL) {
    t->imports = true;
    wasmtime_module_imports(module, &t->in);
  }
  return t;
}

sc_types *sc_exports(wasmtime_module_t *module) {
  sc_types *t = calloc(1, sizeof *t);
  if (t != NULL)
    wasmtime_module_exports(module, &t->out);
  return t;
}

size_t sc_types_len(const sc_types *t) { return t->imports ? t->in.size : t->out.size; }

void sc_types_delete(sc_types *t) {
  if (t->imports)
    wasm_importtype_vec_delete(&t->in);
  else
    wasm_exporttype_vec_delete(&t->out);
  free(t);
}

static uint32_t copy_kinds(const wasm_valtype_vec_t *from, uint8_t *to) {
  for (size_t i = 0; i < from->size && i < SC_MAX_TYPES; i++)
    to[i] = wasm_valtype_kind(from->data[i]);
  return from->size;
}

void sc_types_at(const sc_types *t, size_t i, sc_type *out) {
  memset(out, 0, sizeof *out);
  const wasm_externtype_t *type;
  const wasm_name_t *name;
  if (t->imports) {
    const wasm_name_t *module = wasm_importtype_module(t->in.data[i]);
    out->module = module->data;
    out->module_len = module->size;
    name = wasm_importtype_name(t->in.data[i]);
    type = wasm_importtype_type(t->in.data[i]);
  } else {
    name = wasm_exporttype_name(t->out.data[i]);
    type = wasm_exporttype_type(t->out.data[i]);
  }
  out->name = name->data;
  out->name_len = name->size;
  out->kind = wasm_externtype_kind(type);
  if (out->kind != WASM_EXTERN_FUNC)
    return;
  const wasm_functype_t *ft = wasm_externtype_as_functype_const(type);
  out->nparams = copy_kinds(wasm_functype_params(ft), out->params);
  out->nresults = copy_kinds(wasm_functype_results(ft), out->results);
}

// ---- linking ----

static void refresh_memory(sc_instance *in) {
  if (in->has_memory) {
    in->mem_base = wasmtime_memory_data(in->ctx, &in->memory);
    in->mem_size = wasmtime_memory_data_size(in->ctx, &in->memory);
  }
}

static wasm_trap_t *host_call(void *env, wasmtime_caller_t *caller, wasmtime_val_raw_t *raw,
                              size_t n) {
  (void)n;
  sc_instance *in = wasmtime_context_get_data(wasmtime_caller_context(caller));
  if (!in->has_memory) { // The start section runs before the instance's exports can be read.
    wasmtime_extern_t item;
    if (wasmtime_caller_export_get(caller, "memory", 6, &item) &&
        item.kind == WASMTIME_EXTERN_MEMORY) {
      in->memory = item.of.memory;
      in->has_memory = true;
    }
  }
  refresh_memory(in);
  if (sidecarHostCall(in->self, (uint32_t)(uintptr_t)env, raw) == 0)
    return NULL;
  return wasmtime_trap_new("host call", 9); // Go keeps the error itself.
}

wasmtime_linker_t *sc_linker_new(sc_engine *e) { return wasmtime_linker_new(e->engine); }

void sc_linker_delete(wasmtime_linker_t *linker) { wasmtime_linker_delete(linker); }

int sc_linker_define(wasmtime_linker_t *linker, const sc_types *t, size_t i, uint32_t index,
                     char **error) {
  const wasm_importtype_t *import = t->in.data[i];
  const wasm_name_t *module = wasm_importtype_module(import), *name = wasm_importtype_name(import);
  const wasm_functype_t *ft = wasm_externtype_as_functype_const(wasm_importtype_type(import));
  return take_error(wasmtime_linker_define_func_unchecked(linker, module->data, module->size,
                                                          name->data, name->size, ft, host_call,
                                                          (void *)(uintptr_t)index, NULL),
                    error);
}

wasmtime_instance_pre_t *sc_linker_pre(wasmtime_linker_t *linker, wasmtime_module_t *module,
                                       char **error) {
  wasmtime_instance_pre_t *pre = NULL;
  if (take_error(wasmtime_linker_instantiate_pre(linker, module, &pre), error))
    return NULL;
  live_pres++;
  return pre;
}

void sc_pre_delete(wasmtime_instance_pre_t *pre) {
  wasmtime_instance_pre_delete(pre);
  live_pres--;
}

// ---- instances ----

static void set_deadline(sc_instance *in) {
  // The current epoch is added to it: the largest value would overflow.
  wasmtime_context_set_epoch_deadline(in->ctx, in->ticks != 0 ? in->ticks : UINT64_C(1) << 62);
}

// Keeps what went wrong and frees err and trap. True when nothing did.
static bool succeeded(sc_instance *in, wasmtime_error_t *err, wasm_trap_t *trap) {
  if (err == NULL && trap == NULL)
    return true;
  free(in->error);
  in->error = NULL;
  in->trap_code = -1;
  if (!take_error(err, &in->error)) {
    wasmtime_trap_code_t code;
    if (wasmtime_trap_code(trap, &code))
      in->trap_code = code;
    wasm_byte_vec_t message = {0};
    wasm_trap_message(trap, &message);
    in->error = copy_text(message.data, message.size);
    wasm_byte_vec_delete(&message);
    wasm_trap_delete(trap);
  }
  in->error_len = in->error == NULL ? 0 : strlen(in->error);
  return false;
}

sc_instance *sc_instance_new(sc_engine *e, uintptr_t self, int64_t memory_bytes,
                             int64_t table_elements, uint64_t ticks) {
  sc_instance *in = calloc(1, sizeof *in);
  if (in == NULL)
    return NULL;
  in->self = (void *)self;
  in->engine = e;
  in->ticks = ticks;
  in->store = wasmtime_store_new(e->engine, in, NULL);
  in->ctx = wasmtime_store_context(in->store);
  wasmtime_store_limiter(in->store, memory_bytes, table_elements, 1, 8, 1);
  live_instances++;
  return in;
}

int sc_instance_start(sc_instance *in, wasmtime_instance_pre_t *pre, const sc_name *funcs,
                      uint32_t nfuncs) {
  in->funcs = calloc(nfuncs ? nfuncs : 1, sizeof *in->funcs);
  if (in->funcs == NULL)
    return 1;
  in->nfuncs = nfuncs;
  wasm_trap_t *trap = NULL;
  in->depth = 1;
  guest_enter(in->engine);
  set_deadline(in);
  wasmtime_error_t *err = wasmtime_instance_pre_instantiate(pre, in->ctx, &in->instance, &trap);
  guest_leave(in->engine);
  in->depth = 0;
  if (!succeeded(in, err, trap))
    return 1;
  wasmtime_extern_t item;
  for (uint32_t i = 0; i < nfuncs; i++)
    if (wasmtime_instance_export_get(in->ctx, &in->instance, funcs[i].data, funcs[i].len, &item) &&
        item.kind == WASMTIME_EXTERN_FUNC)
      in->funcs[i] = item.of.func;
  if (wasmtime_instance_export_get(in->ctx, &in->instance, "memory", 6, &item) &&
      item.kind == WASMTIME_EXTERN_MEMORY) {
    in->memory = item.of.memory;
    in->has_memory = true;
  }
  refresh_memory(in);
  return 0;
}

void sc_instance_delete(sc_instance *in) {
  wasmtime_store_delete(in->store);
  free(in->funcs);
  free(in->globals);
  free(in->error);
  free(in);
  live_instances--;
}

int sc_call(sc_instance *in, uint32_t fn, uint32_t nargs) {
  // A copy: a host function that calls back into the guest reuses args.
  wasmtime_val_raw_t raw[SC_MAX_ARGS];
  for (uint32_t i = 0; i < nargs; i++)
    raw[i].i64 = in->args[i];
  bool outermost = in->depth++ == 0;
  if (outermost) {
    guest_enter(in->engine);
    set_deadline(in);
  }
  wasm_trap_t *trap = NULL;
  wasmtime_error_t *err =
      wasmtime_func_call_unchecked(in->ctx, &in->funcs[fn], raw, nargs ? nargs : 1, &trap);
  in->depth--;
  if (outermost)
    guest_leave(in->engine);
  refresh_memory(in);
  if (!succeeded(in, err, trap))
    return 1;
  in->result = raw[0].i64;
  return 0;
}

uint64_t sc_noop(uint64_t v) { return v; }
