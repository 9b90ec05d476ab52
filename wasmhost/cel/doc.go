// Package cel parses and evaluates CEL expressions for the expr_* functions that plugins call.
//
// It is an evaluator of its own because the reference implementation costs 10 MB of memory in every
// process, used or not, and its checker serves nothing here: attributes have no declared types. What
// plugins use is there: literals, operators, member selection and indexing, the standard functions
// without regular expressions' captures, and the five macros.
//
// Limitations: no time zones in the accessors of timestamps (they are UTC), no messages to construct,
// no optional types. A program's cost is bounded by Limits, since a host call can't be interrupted.
package cel
