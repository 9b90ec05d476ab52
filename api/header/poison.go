//go:build !invariant

package header

const poison = false
