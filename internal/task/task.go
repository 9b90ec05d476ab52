// Package task starts every goroutine of the process, so that a panic has one place where it ends.
//
// Go recovers at the goroutine's root: the owner of what the goroutine ran for (a connection, a
// subsystem) is told and closes or restarts it; the process lives. Live counts are for leak checks.
package task

import (
	"fmt"
	"runtime/debug"
	"sync/atomic"
)

//nolint:gochecknoglobals // a process-wide count, read by tests and the admin server
var live, panics atomic.Int64

// Panic is what a recovered goroutine was stopped by.
type Panic struct {
	Task  string
	Value any
	Stack []byte
}

// Error describes the panic with its stack.
func (p *Panic) Error() string { return fmt.Sprintf("%s: panic: %v\n%s", p.Task, p.Value, p.Stack) }

// Go runs f on a goroutine of its own. When f panics, failed is called on that goroutine (if not
// nil) with what happened.
func Go(name string, f func(), failed func(*Panic)) {
	live.Add(1)
	go run(name, f, failed)
}

func run(name string, f func(), failed func(*Panic)) {
	defer live.Add(-1)
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		panics.Add(1)
		if failed != nil {
			failed(&Panic{Task: name, Value: v, Stack: debug.Stack()})
		}
	}()
	f()
}

// Live returns the number of goroutines started here that have not ended.
func Live() int64 { return live.Load() }

// Panics returns how many ended in a panic.
func Panics() int64 { return panics.Load() }
