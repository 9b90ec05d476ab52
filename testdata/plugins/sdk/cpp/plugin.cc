// See ../README.md.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#define IMPORT(name) __attribute__((import_module("env"), import_name(#name))) extern "C" uint32_t name
#define EXPORT(name) extern "C" __attribute__((export_name(#name)))

IMPORT(proxy_log)(uint32_t level, const char *message, size_t size);
IMPORT(proxy_get_buffer_bytes)(uint32_t kind, uint32_t start, uint32_t max, char **data, size_t *size);
IMPORT(proxy_get_header_map_pairs)(uint32_t kind, char **data, size_t *size);
IMPORT(proxy_get_header_map_value)(uint32_t kind, const char *key, size_t key_size, char **data, size_t *size);
IMPORT(proxy_add_header_map_value)(uint32_t kind, const char *key, size_t key_size, const char *value, size_t size);
IMPORT(proxy_replace_header_map_value)(uint32_t kind, const char *key, size_t key_size, const char *value, size_t size);
IMPORT(proxy_remove_header_map_value)(uint32_t kind, const char *key, size_t key_size);
IMPORT(proxy_send_local_response)(uint32_t status, const char *details, size_t details_size, const char *body,
                                  size_t body_size, const char *headers, size_t headers_size, int32_t grpc);

namespace {

constexpr uint32_t kRequestHeaders = 0, kResponseHeaders = 2, kPluginConfiguration = 7, kInfo = 2;

std::string tag = "none";

// Owns what the host has allocated with malloc.
struct Data {
  char *data = nullptr;
  size_t size = 0;
  ~Data() { std::free(data); }
  std::string_view view() const { return {data, size}; }
};

void add(uint32_t kind, std::string_view name, std::string_view value) {
  proxy_add_header_map_value(kind, name.data(), name.size(), value.data(), value.size());
}

void appendWord(std::string &out, uint32_t v) {
  for (int i = 0; i < 4; i++)
    out.push_back(static_cast<char>(v >> (8 * i)));
}

void reply() {
  std::string headers;
  appendWord(headers, 1);
  appendWord(headers, 5);
  appendWord(headers, tag.size());
  headers.append("x-tag").push_back('\0');
  headers.append(tag).push_back('\0');
  std::string_view body = "hello\n";
  proxy_send_local_response(200, nullptr, 0, body.data(), body.size(), headers.data(), headers.size(), -1);
}

} // namespace

EXPORT(proxy_abi_version_0_2_1) void abi_version() {}

EXPORT(proxy_on_memory_allocate) void *allocate(size_t size) { return std::malloc(size); }

EXPORT(proxy_on_configure) uint32_t configure(uint32_t, uint32_t size) {
  Data d;
  if (size > 0 && proxy_get_buffer_bytes(kPluginConfiguration, 0, size, &d.data, &d.size) == 0)
    tag = d.view();
  return 1;
}

EXPORT(proxy_on_request_headers) uint32_t request_headers(uint32_t, uint32_t, uint32_t) {
  Data path, pairs;
  std::string_view name = ":path";
  if (proxy_get_header_map_value(kRequestHeaders, name.data(), name.size(), &path.data, &path.size) == 0 &&
      path.view() == "/hello") {
    reply();
    return 1;
  }
  if (proxy_get_header_map_pairs(kRequestHeaders, &pairs.data, &pairs.size) != 0 || pairs.size < 4)
    return 0;
  uint32_t count = 0;
  for (int i = 3; i >= 0; i--)
    count = count << 8 | static_cast<unsigned char>(pairs.data[i]);
  add(kRequestHeaders, "x-header-count", std::to_string(count));
  proxy_replace_header_map_value(kRequestHeaders, "x-tag", 5, tag.data(), tag.size());
  proxy_remove_header_map_value(kRequestHeaders, "x-secret", 8);
  return 0;
}

EXPORT(proxy_on_response_headers) uint32_t response_headers(uint32_t, uint32_t, uint32_t) {
  add(kResponseHeaders, "x-plugin", tag);
  return 0;
}

EXPORT(proxy_on_log) void on_log(uint32_t) { proxy_log(kInfo, "done", 4); }
