#define _GNU_SOURCE
#include "shim.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#ifdef __linux__
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

// MAX_TAIL is how much an instance may have grown beyond its snapshot, MAX_CLEARED how much of that is
// cleared rather than given back.
enum { PAGE = 4096, MAX_TAIL = 16 << 20, MAX_CLEARED = 1 << 20 };

static _Atomic int64_t live_snapshots;

int64_t sc_live_snapshots(void) { return live_snapshots; }

static void refresh(sc_instance *in) {
  if (in->has_memory) {
    in->mem_base = wasmtime_memory_data(in->ctx, &in->memory);
    in->mem_size = wasmtime_memory_data_size(in->ctx, &in->memory);
  }
}

int sc_instance_global(sc_instance *in, const char *name, size_t len, uint32_t total) {
  wasmtime_extern_t item;
  if (in->globals == NULL)
    in->globals = calloc(total, sizeof *in->globals);
  if (in->globals == NULL ||
      !wasmtime_instance_export_get(in->ctx, &in->instance, name, len, &item) ||
      item.kind != WASMTIME_EXTERN_GLOBAL)
    return 1;
  in->globals[in->nglobals++] = item.of.global;
  return 0;
}

#ifdef __linux__
// The kernel's interface to find the pages that a private mapping has copied (Linux 6.7).
struct page_region {
  uint64_t start, end, categories;
};
struct scan_arg {
  uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
  uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define SCAN_IOCTL _IOWR('f', 16, struct scan_arg)
enum { IS_FILE = 1 << 2, IS_PRESENT = 1 << 3, IS_SWAPPED = 1 << 4, REGIONS = 64 };

// Never closed: one for the process. -1 where there is none.
static int pagemap(void) {
  static _Atomic int fd = -2;
  int have = atomic_load(&fd);
  if (have != -2)
    return have;
  have = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  int expected = -2;
  if (!atomic_compare_exchange_strong(&fd, &expected, have)) {
    if (have >= 0)
      close(have);
    have = expected;
  }
  return have;
}

typedef int (*visit)(uint8_t *page, const uint8_t *image, size_t n);

static int copy_back(uint8_t *page, const uint8_t *image, size_t n) {
  memcpy(page, image, n);
  return 0;
}

static int changed(uint8_t *page, const uint8_t *image, size_t n) {
  return memcmp(page, image, n) != 0;
}

// Visits each run of pages that the instance has its own copy of. -1: the kernel can't tell.
static int each_private(sc_instance *in, const sc_snapshot *s, visit f) {
  struct page_region regions[REGIONS];
  uint64_t base = (uint64_t)in->mem_base, end = base + s->size;
  struct scan_arg a = {
      .size = sizeof a, .start = base, .end = end, .vec = (uint64_t)regions, .vec_len = REGIONS,
      .category_inverted = IS_FILE, .category_mask = IS_FILE,
      .category_anyof_mask = IS_PRESENT | IS_SWAPPED, .return_mask = IS_PRESENT,
  };
  while (a.start < end) {
    int n = ioctl(pagemap(), SCAN_IOCTL, &a);
    if (n < 0)
      return -1;
    for (int i = 0; i < n; i++) {
      uint64_t at = regions[i].start - base;
      if (f((uint8_t *)regions[i].start, s->image + at, regions[i].end - regions[i].start))
        return 1;
    }
    if (n < REGIONS)
      break;
    a.start = a.walk_end;
  }
  return 0;
}

// Makes what the instance has beyond the snapshot's size zero again. Pages stay where they are, so that
// they fault no more, unless they are many.
static int zero_tail(sc_instance *in, const sc_snapshot *s) {
  if (!in->has_memory || in->mem_size == s->size)
    return 0;
  uint64_t start = (uint64_t)in->mem_base + s->size, end = (uint64_t)in->mem_base + in->mem_size;
  if (end - start > MAX_TAIL)
    return 1;
  struct page_region regions[REGIONS];
  struct scan_arg a = {
      .size = sizeof a, .start = start, .end = end, .vec = (uint64_t)regions, .vec_len = REGIONS,
      .category_anyof_mask = IS_PRESENT | IS_SWAPPED, .return_mask = IS_PRESENT,
  };
  uint64_t cleared = 0;
  while (a.start < end) {
    int n = ioctl(pagemap(), SCAN_IOCTL, &a);
    if (n < 0 || cleared > MAX_CLEARED)
      return madvise((void *)start, end - start, MADV_DONTNEED) == 0 ? 0 : 2;
    for (int i = 0; i < n; i++) {
      memset((void *)regions[i].start, 0, regions[i].end - regions[i].start);
      cleared += regions[i].end - regions[i].start;
    }
    if (n < REGIONS)
      break;
    a.start = a.walk_end;
  }
  return 0;
}

static int map(sc_instance *in, const sc_snapshot *s) {
  if (s->size == 0)
    return 0;
  return mmap(in->mem_base, s->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, s->fd, 0) ==
                 MAP_FAILED
             ? 2
             : 0;
}

// An image without pages that are all zero: they cost no memory in a file that was only lengthened.
static int make_image(sc_snapshot *s) {
  s->fd = memfd_create("wasm snapshot", MFD_CLOEXEC);
  if (s->fd < 0)
    return 1;
  if (s->size == 0)
    return 0;
  if (ftruncate(s->fd, s->size) != 0)
    return 1;
  void *p = mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
  if (p == MAP_FAILED)
    return 1;
  s->image = p;
  return 0;
}

static void free_image(sc_snapshot *s) {
  if (s->image != NULL)
    munmap(s->image, s->size);
  if (s->fd >= 0)
    close(s->fd);
}
#else
static int zero_tail(sc_instance *in, const sc_snapshot *s) {
  if (in->has_memory && in->mem_size - s->size > MAX_TAIL)
    return 1;
  if (in->has_memory)
    memset(in->mem_base + s->size, 0, in->mem_size - s->size);
  return 0;
}

static int map(sc_instance *in, const sc_snapshot *s) {
  memcpy(in->mem_base, s->image, s->size);
  return 0;
}

static int make_image(sc_snapshot *s) {
  s->fd = -1;
  s->image = calloc(1, s->size ? s->size : 1);
  return s->image == NULL;
}

static void free_image(sc_snapshot *s) { free(s->image); }
#endif

static bool zero(const uint8_t *p) {
  const uint64_t *w = (const uint64_t *)p;
  for (size_t i = 0; i < PAGE / sizeof *w; i++)
    if (w[i] != 0)
      return false;
  return true;
}

void sc_snapshot_delete(sc_snapshot *s) {
  free_image(s);
  free(s->globals);
  free(s);
  live_snapshots--;
}

sc_snapshot *sc_snapshot_take(sc_instance *in) {
  sc_snapshot *s = calloc(1, sizeof *s);
  if (s == NULL)
    return NULL;
  live_snapshots++;
  refresh(in);
  s->fd = -1;
  s->size = in->has_memory ? in->mem_size : 0;
  s->nglobals = in->nglobals;
  s->globals = calloc(s->nglobals ? s->nglobals : 1, sizeof *s->globals);
  if (s->globals == NULL || make_image(s) != 0) {
    sc_snapshot_delete(s);
    return NULL;
  }
  for (size_t at = 0; at < s->size; at += PAGE)
    if (!zero(in->mem_base + at))
      memcpy(s->image + at, in->mem_base + at, PAGE);
  for (uint32_t i = 0; i < s->nglobals; i++)
    wasmtime_global_get(in->ctx, &in->globals[i], &s->globals[i]);
  return s;
}

static int set_globals(sc_instance *in, const sc_snapshot *s) {
  for (uint32_t i = 0; i < s->nglobals && i < in->nglobals; i++) {
    wasmtime_error_t *err = wasmtime_global_set(in->ctx, &in->globals[i], &s->globals[i]);
    if (err != NULL) {
      wasmtime_error_delete(err);
      return 2;
    }
  }
  return 0;
}

int sc_snapshot_adopt(sc_instance *in, const sc_snapshot *s) {
  refresh(in);
  if (in->has_memory && in->mem_size < s->size) {
    uint64_t before;
    wasmtime_error_t *err =
        wasmtime_memory_grow(in->ctx, &in->memory, (s->size - in->mem_size) / 65536, &before);
    if (err != NULL) {
      wasmtime_error_delete(err);
      return 2;
    }
    refresh(in);
  }
  if (in->has_memory && in->mem_size < s->size)
    return 1;
  int rc = zero_tail(in, s);
  if (rc == 0)
    rc = map(in, s);
  return rc != 0 ? rc : set_globals(in, s);
}

int sc_snapshot_restore(sc_instance *in, const sc_snapshot *s) {
  refresh(in);
  if (in->has_memory && in->mem_size < s->size)
    return 1;
  int rc = zero_tail(in, s);
  if (rc != 0)
    return rc;
#ifdef __linux__
  if (s->size != 0 && each_private(in, s, copy_back) < 0 && map(in, s) != 0)
    return 2;
#else
  map(in, s);
#endif
  return set_globals(in, s);
}

int sc_snapshot_differs(sc_instance *in, const sc_snapshot *s) {
  refresh(in);
  if (in->has_memory && in->mem_size != s->size)
    return 1;
  for (uint32_t i = 0; i < s->nglobals && i < in->nglobals; i++) {
    wasmtime_val_t v;
    memset(&v, 0, sizeof v);
    wasmtime_global_get(in->ctx, &in->globals[i], &v);
    if (v.kind != s->globals[i].kind || memcmp(v.of.v128, s->globals[i].of.v128, 4) != 0)
      return 1;
    if ((v.kind == WASM_I64 || v.kind == WASM_F64) && v.of.i64 != s->globals[i].of.i64)
      return 1;
    if (v.kind > WASM_F64 && memcmp(v.of.v128, s->globals[i].of.v128, 16) != 0)
      return 1;
  }
#ifdef __linux__
  if (s->size == 0)
    return 0;
  int rc = each_private(in, s, changed);
  if (rc >= 0)
    return rc;
#endif
  return s->size != 0 && memcmp(in->mem_base, s->image, s->size) != 0;
}
