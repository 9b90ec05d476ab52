// Layouts of the wasmtime C API's value types that the shim passes by pointer. WT() renames them in
// testdata/check.c, where each is compared with the one in wasmtime.h of the linked version.
#ifndef SIDECAR_WASMTIME_LAYOUT_H
#define SIDECAR_WASMTIME_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef WT
#define WT(name) name
#endif

typedef struct WT(wasm_byte_vec_t) {
  size_t size;
  char *data;
} WT(wasm_byte_vec_t);

typedef struct WT(wasmtime_func) {
  uint64_t store_id;
  void *__private;
} WT(wasmtime_func_t);

typedef struct WT(wasmtime_memory) {
  struct {
    uint64_t store_id;
    uint32_t __private1;
  };
  uint32_t __private2;
} WT(wasmtime_memory_t);

typedef struct WT(wasmtime_global) {
  uint64_t store_id;
  uint32_t __private1;
  uint32_t __private2;
  uint32_t __private3;
} WT(wasmtime_global_t);

typedef union WT(wasmtime_extern_union) {
  WT(wasmtime_func_t) func;
  WT(wasmtime_global_t) global;
  WT(wasmtime_memory_t) memory;
  void *sharedmemory;
} WT(wasmtime_extern_union_t);

typedef struct WT(wasmtime_extern) {
  uint8_t kind;
  WT(wasmtime_extern_union_t) of;
} WT(wasmtime_extern_t);

typedef struct WT(wasmtime_instance) {
  uint64_t store_id;
  size_t __private;
} WT(wasmtime_instance_t);

typedef struct WT(wasmtime_externref) {
  uint64_t store_id;
  uint32_t __private1;
  uint32_t __private2;
  void *__private3;
} WT(wasmtime_externref_t);

typedef union WT(wasmtime_valunion) {
  int32_t i32;
  int64_t i64;
  float f32;
  double f64;
  WT(wasmtime_externref_t) externref;
  WT(wasmtime_func_t) funcref;
  uint8_t v128[16];
} WT(wasmtime_valunion_t);

typedef struct WT(wasmtime_val) {
  uint8_t kind;
  WT(wasmtime_valunion_t) of;
} WT(wasmtime_val_t);

typedef union WT(wasmtime_val_raw) {
  int32_t i32;
  int64_t i64;
  float f32;
  double f64;
  uint8_t v128[16];
  void *funcref;
} WT(wasmtime_val_raw_t);

#endif
