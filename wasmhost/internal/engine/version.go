package engine

// Version stands for the version of wasmtime and for all that the code which Save gives depends on, in
// names of files. It changes with them. (Load refuses code of another version anyway.)
const Version = "39-1"
