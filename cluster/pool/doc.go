// Package pool holds the connections to one host: HTTP/1 connections that are used again, and TCP
// connections that are handed out once.
//
// A stream that finds an idle connection gets it at once, without an allocation. Else it waits in the
// pool while a goroutine dials, and is told by an event; that goroutine then reads the connection for
// the rest of its life. No call blocks.
//
// Idle connections are kept in stripes, each a stack under a lock of its own (last in, first out: the
// others may time out). Who waits is under the pool's lock. To lose no wake-up, a connection is pushed
// before the number of waiters is read, and a waiter is counted before the stripes are read. Nothing is
// called or posted while a lock is held.
package pool
