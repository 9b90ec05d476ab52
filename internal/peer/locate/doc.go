// Package locate finds the programs that the bench and the compatibility check run: our own binary,
// the real Envoy, and the load generators. What is absent is an error that says what to do about it;
// callers print that and skip.
package locate
