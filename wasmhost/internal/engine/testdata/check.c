// Compiled, never run, by TestHeadersAgree with the directory of the linked wasmtime's headers.
#include <wasmtime.h>

#define WT(name) sidecar_##name
#include "../layout.h"

#define SAME_SIZE(t) _Static_assert(sizeof(sidecar_##t) == sizeof(t), #t " changed its size")
#define SAME_OFFSET(t, f)                                                                          \
  _Static_assert(offsetof(sidecar_##t, f) == offsetof(t, f), #t "." #f " moved")

SAME_SIZE(wasm_byte_vec_t);
SAME_OFFSET(wasm_byte_vec_t, data);
SAME_SIZE(wasmtime_func_t);
SAME_OFFSET(wasmtime_func_t, __private);
SAME_SIZE(wasmtime_memory_t);
SAME_OFFSET(wasmtime_memory_t, __private2);
SAME_SIZE(wasmtime_global_t);
SAME_SIZE(wasmtime_extern_t);
SAME_OFFSET(wasmtime_extern_t, of);
SAME_SIZE(wasmtime_instance_t);
SAME_OFFSET(wasmtime_instance_t, __private);
SAME_SIZE(wasmtime_val_raw_t);
SAME_SIZE(wasmtime_val_t);
SAME_OFFSET(wasmtime_val_t, of);
_Static_assert(WASMTIME_EXTERN_GLOBAL == 1, "extern kinds changed");
_Static_assert(WASMTIME_EXTERN_FUNC == 0 && WASMTIME_EXTERN_MEMORY == 3, "extern kinds changed");
_Static_assert(WASM_EXTERN_FUNC == 0 && WASM_EXTERN_MEMORY == 3, "extern type kinds changed");
_Static_assert(WASM_I32 == 0 && WASM_F64 == 3 && WASM_EXTERNREF == 128, "value kinds changed");
_Static_assert(WASMTIME_STRATEGY_CRANELIFT == 1, "strategies changed");
_Static_assert(WASMTIME_OPT_LEVEL_SPEED == 1, "optimisation levels changed");
_Static_assert(WASMTIME_TRAP_CODE_INTERRUPT == 10, "trap codes changed");
_Static_assert(WASMTIME_TRAP_CODE_UNREACHABLE_CODE_REACHED == 9, "trap codes changed");
_Static_assert(WASMTIME_TRAP_CODE_STACK_OVERFLOW == 0, "trap codes changed");

// Each declaration below is now one more of the same name: a different type is a compile error.
#define SIDECAR_REAL_HEADERS
#include "../wasmtime_api.h"
