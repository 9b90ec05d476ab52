//go:build invariant

package header

// poison overwrites arenas when their map is reset, so that a string kept too long shows in tests.
const poison = true
