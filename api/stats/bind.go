package stats

import (
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"
)

// Lazy is a family of stats that is allocated at its first use.
type Lazy[T any] struct {
	p    atomic.Pointer[T]
	lay  *layout
	next family
}

// Get returns the family: one atomic load, and one allocation at the first call. It may be called
// from any goroutine.
func (l *Lazy[T]) Get() *T {
	if p := l.p.Load(); p != nil {
		return p
	}
	l.p.CompareAndSwap(nil, new(T))
	return l.p.Load()
}

// Peek returns the family if it was used, else nil.
func (l *Lazy[T]) Peek() *T { return l.p.Load() }

func (l *Lazy[T]) layout() *layout   { return l.lay }
func (l *Lazy[T]) following() family { return l.next }

func (l *Lazy[T]) value(make bool) reflect.Value {
	p := l.p.Load()
	if p == nil && make {
		p = l.Get()
	}
	if p == nil {
		return reflect.Value{}
	}
	return reflect.ValueOf(p).Elem()
}

// family is a bound struct of stats in the list of its scope.
type family interface {
	layout() *layout
	// value returns the struct, or the zero Value if it isn't allocated and make is false.
	value(make bool) reflect.Value
	following() family
}

// Bind returns the stats of the struct type T in the scope, allocated now. Handles on scopes of one
// name get the same struct.
//
// T is a struct of Counter, Gauge, Histogram, Text and Codes values, each with a tag such as
// stat:"upstream_rq_total"; a histogram may name its unit (bytes, us, ms, percent) behind a comma:
// stat:"upstream_rq_time,ms". A nested struct may have a tag that is a prefix, such as
// stat:"circuit_breakers.default". T is described once in a store, so a family costs its values
// alone. A type that doesn't fit panics: it is a mistake in the program.
func Bind[T any](c *Scope) *T { return BindLazy[T](c).Get() }

// BindLazy is Bind for a family that is listed with zeros until its first use, and costs 32 bytes
// until then, however large T is.
func BindLazy[T any](c *Scope) *Lazy[T] {
	s, n := c.store, c.node
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := n.families; f != nil; f = f.following() {
		if l, ok := f.(*Lazy[T]); ok {
			return l
		}
	}
	l := &Lazy[T]{lay: s.layoutOf(reflect.TypeFor[T]()), next: n.families}
	n.families = l
	return l
}

// layout is what a family type looks like, worked out once.
type layout struct {
	fields []fieldLayout
	byName map[string]*fieldLayout
	// histograms are those of the fields that are one.
	histograms []*fieldLayout
}

type fieldLayout struct {
	name  string
	index []int
	kind  Kind
	unit  Unit
	codes bool // a Codes: name is the part before "_200"
}

func field(v reflect.Value, fl *fieldLayout) any {
	return v.FieldByIndex(fl.index).Addr().Interface()
}

func (s *Store) layoutOf(t reflect.Type) *layout {
	if lay := s.layouts[t]; lay != nil {
		return lay
	}
	lay := &layout{byName: map[string]*fieldLayout{}}
	lay.describe(t, "", nil)
	for i := range lay.fields {
		fl := &lay.fields[i]
		if lay.byName[fl.name] != nil {
			panic(fmt.Sprintf("stats: %v: two fields are called %q", t, fl.name))
		}
		lay.byName[fl.name] = fl
		if fl.kind == KindHistogram {
			lay.histograms = append(lay.histograms, fl)
		}
	}
	s.layouts[t] = lay
	return lay
}

func (lay *layout) describe(t reflect.Type, prefix string, index []int) {
	if t.Kind() != reflect.Struct {
		panic(fmt.Sprintf("stats: %v is not a struct", t))
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			panic(fmt.Sprintf("stats: %v.%s is not exported", t, f.Name))
		}
		at := append(append([]int(nil), index...), i)
		tag, unit, _ := strings.Cut(f.Tag.Get("stat"), ",")
		fl := fieldLayout{name: prefix + tag, index: at}
		switch f.Type {
		case reflect.TypeFor[Counter]():
			fl.kind = KindCounter
		case reflect.TypeFor[Gauge]():
			fl.kind = KindGauge
		case reflect.TypeFor[Text]():
			fl.kind = KindText
		case reflect.TypeFor[Codes]():
			fl.kind, fl.codes = KindCounter, true
		case reflect.TypeFor[Histogram]():
			fl.kind, fl.unit = KindHistogram, parseUnit(t, f.Name, unit)
		default:
			inner := prefix
			if tag != "" {
				inner += tag + "."
			}
			lay.describe(f.Type, inner, at)
			continue
		}
		if tag == "" {
			panic(fmt.Sprintf("stats: %v.%s has no stat tag", t, f.Name))
		}
		lay.fields = append(lay.fields, fl)
	}
}

func parseUnit(t reflect.Type, name, unit string) Unit {
	switch unit {
	case "":
		return Unspecified
	case "bytes":
		return Bytes
	case "us":
		return Microseconds
	case "ms":
		return Milliseconds
	case "percent":
		return Percent
	}
	panic(fmt.Sprintf("stats: %v.%s: unknown unit %q", t, name, unit))
}
