// Package match compiles the matchers that routes, filters and policies share: strings, regular
// expressions, headers, query parameters, cookies, dynamic metadata and filter state.
//
// A Compile function reads a protobuf message once and reports what is wrong with it at its field
// path; what it returns is immutable, holds no protobuf and matches without allocating.
//
// Regular expressions are Go's, whose syntax is RE2's but for \C.
// DIVERGES(regex): a byte that isn't valid UTF-8 matches "." here and doesn't in RE2; RE2's limit
// on the size of a program (re2.max_program_size) is not applied, Go's own limits are.
package match
