package cel

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Attributes gives the value of an attribute by its path, whose segments are separated by NUL. Values
// are nil, bool, int64, uint64, float64, string, []byte, time.Duration, time.Time, []any and
// map[string]any.
type Attributes interface {
	Resolve(path string) (any, bool)
}

// maxSteps bounds the work of one evaluation.
const maxSteps = 200_000

var (
	errCost   = errors.New("the expression takes too long")
	errNoKey  = errors.New("no such key")
	errNoType = errors.New("no such overload")
)

type eval struct {
	attrs Attributes
	steps int
	vars  []variable
}

type variable struct {
	name  string
	value any
}

// Eval evaluates the program.
func (p *Program) Eval(a Attributes) (any, error) {
	e := &eval{attrs: a, steps: maxSteps}
	return e.eval(p.root)
}

func (e *eval) spend(n int) error {
	if e.steps -= 1 + n; e.steps < 0 {
		return errCost
	}
	return nil
}

func (e *eval) eval(n *node) (any, error) {
	if err := e.spend(0); err != nil {
		return nil, err
	}
	switch n.op {
	case opConst:
		return n.value, nil
	case opIdent:
		return e.ident(n)
	case opSelect, opIndex:
		return e.member(n)
	case opHas:
		return e.has(n.args[0])
	case opList:
		return e.all(n.args)
	case opMap:
		return e.mapping(n)
	case opFold:
		return e.fold(n)
	case opAnd, opOr:
		return e.logic(n)
	case opCond:
		c, err := e.eval(n.args[0])
		if err != nil {
			return nil, err
		}
		yes, ok := c.(bool)
		switch {
		case !ok:
			return nil, errNoType
		case yes:
			return e.eval(n.args[1])
		}
		return e.eval(n.args[2])
	case opCall, opNot, opNeg, opBinary:
	}
	return e.operation(n)
}

// operation evaluates what needs all its arguments first.
func (e *eval) operation(n *node) (any, error) {
	args, err := e.all(n.args)
	if err != nil {
		return nil, err
	}
	switch n.op { //nolint:exhaustive // the others are done
	case opNot:
		if b, ok := args[0].(bool); ok {
			return !b, nil
		}
		return nil, errNoType
	case opNeg:
		return negate(args[0])
	case opBinary:
		return e.binary(n.name, args[0], args[1])
	default:
		return e.call(n.name, args)
	}
}

func (e *eval) all(nodes []*node) ([]any, error) {
	out := make([]any, len(nodes))
	for i, n := range nodes {
		v, err := e.eval(n)
		if err != nil {
			return nil, err
		}
		out[i] = v
	}
	return out, nil
}

func (e *eval) ident(n *node) (any, error) {
	for _, v := range slices.Backward(e.vars) {
		if v.name == n.name {
			return v.value, nil
		}
	}
	if v, ok := e.attrs.Resolve(n.name); ok {
		return v, nil
	}
	return nil, fmt.Errorf("no attribute %q", n.name)
}

// member tries the whole chain as an attribute first: most roots are no values by themselves.
func (e *eval) member(n *node) (any, error) {
	if n.path != "" && !n.dynamic {
		if v, ok := e.attrs.Resolve(n.path); ok {
			return v, nil
		}
	}
	v, err := e.eval(n.args[0])
	if err != nil {
		return nil, err
	}
	if n.op == opSelect {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, errNoType
		}
		if got, ok := m[n.name]; ok {
			return got, nil
		}
		return nil, errNoKey
	}
	key, err := e.eval(n.args[1])
	if err != nil {
		return nil, err
	}
	return index(v, key)
}

func index(v, key any) (any, error) {
	switch at := v.(type) {
	case map[string]any:
		if k, ok := key.(string); ok {
			if got, ok := at[k]; ok {
				return got, nil
			}
			return nil, errNoKey
		}
	case []any:
		var i int64
		switch k := key.(type) {
		case int64:
			i = k
		case uint64:
			i = int64(min(k, 1<<62))
		default:
			return nil, errNoType
		}
		if i < 0 || i >= int64(len(at)) {
			return nil, errors.New("index out of range")
		}
		return at[i], nil
	}
	return nil, errNoType
}

// has is false for what is not there, an error only where there is nothing to look into.
func (e *eval) has(n *node) (any, error) {
	_, err := e.member(n)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, errCost) || errors.Is(err, errNoType):
		return nil, err
	}
	return false, nil
}

func (e *eval) mapping(n *node) (any, error) {
	out := make(map[string]any, len(n.args)/2)
	for i := 0; i < len(n.args); i += 2 {
		k, err := e.eval(n.args[i])
		if err != nil {
			return nil, err
		}
		key, ok := k.(string)
		if !ok {
			return nil, errors.New("keys of maps are strings here")
		}
		if out[key], err = e.eval(n.args[i+1]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// logic: an operand that decides hides an error of the other, in either order.
func (e *eval) logic(n *node) (any, error) {
	decides := n.op == opOr
	var failed error
	for _, a := range n.args {
		v, err := e.eval(a)
		b, ok := v.(bool)
		switch {
		case errors.Is(err, errCost):
			return nil, err
		case err != nil:
			failed = err
		case !ok:
			failed = errNoType
		case b == decides:
			return decides, nil
		}
	}
	if failed != nil {
		return nil, failed
	}
	return !decides, nil
}

// items are what a macro goes over: the elements of a list, or the keys of a map.
func items(v any) ([]any, error) {
	switch v := v.(type) {
	case []any:
		return v, nil
	case map[string]any:
		out := make([]any, 0, len(v))
		for k := range v {
			out = append(out, k)
		}
		return out, nil
	}
	return nil, errNoType
}

func (e *eval) fold(n *node) (any, error) {
	v, err := e.eval(n.args[0])
	if err != nil {
		return nil, err
	}
	list, err := items(v)
	if err != nil {
		return nil, err
	}
	out, count := []any{}, 0
	var failed error
	for _, item := range list {
		got, err := e.with(n.variable, item, n.args[1])
		if errors.Is(err, errCost) {
			return nil, err
		}
		yes, isBool := got.(bool)
		switch {
		case n.name == "map" && len(n.args) == 2:
			if err != nil {
				return nil, err
			}
			out = append(out, got)
			continue
		case err != nil:
			failed = err
		case !isBool:
			failed = errNoType
		case n.name == "exists" && yes:
			return true, nil
		case n.name == "all" && !yes:
			return false, nil
		case yes:
			count++
			if n.name == "map" {
				if item, err = e.with(n.variable, item, n.args[2]); err != nil {
					return nil, err
				}
			}
			out = append(out, item)
		}
	}
	switch {
	case failed != nil:
		return nil, failed
	case n.name == "exists":
		return false, nil
	case n.name == "all":
		return true, nil
	case n.name == "exists_one":
		return count == 1, nil
	}
	return out, nil
}

func (e *eval) with(name string, value any, body *node) (any, error) {
	e.vars = append(e.vars, variable{name, value})
	v, err := e.eval(body)
	e.vars = e.vars[:len(e.vars)-1]
	return v, err
}

// equal compares as CEL does: numbers by value whatever their types, others of different types never.
func (e *eval) equal(a, b any) (bool, error) {
	if err := e.spend(0); err != nil {
		return false, err
	}
	if c, ok := compareNumbers(a, b); ok {
		return c == 0, nil
	}
	switch a := a.(type) {
	case nil:
		return b == nil, nil
	case bool, string, time.Duration:
		return a == b, nil
	case time.Time:
		t, ok := b.(time.Time)
		return ok && a.Equal(t), nil
	case []byte:
		x, ok := b.([]byte)
		return ok && bytes.Equal(a, x), nil
	case []any:
		x, ok := b.([]any)
		if !ok || len(x) != len(a) {
			return false, nil
		}
		for i := range a {
			if same, err := e.equal(a[i], x[i]); !same || err != nil {
				return false, err
			}
		}
		return true, nil
	case map[string]any:
		x, ok := b.(map[string]any)
		if !ok || len(x) != len(a) {
			return false, nil
		}
		for k := range a {
			other, there := x[k]
			if !there {
				return false, nil
			}
			if same, err := e.equal(a[k], other); !same || err != nil {
				return false, err
			}
		}
		return true, nil
	}
	return false, nil
}

func (e *eval) binary(name string, a, b any) (any, error) {
	switch name {
	case "==":
		return e.equal(a, b)
	case "!=":
		same, err := e.equal(a, b)
		return !same, err
	case "in":
		return e.in(a, b)
	case "<", "<=", ">", ">=":
		c, err := e.compare(a, b)
		if err != nil {
			return nil, err
		}
		switch name {
		case "<":
			return c == -1, nil
		case "<=":
			return c == -1 || c == 0, nil
		case ">":
			return c == 1, nil
		}
		return c == 1 || c == 0, nil
	case "+":
		return e.add(a, b)
	}
	return arithmetic(name, a, b)
}

func (e *eval) in(a, b any) (any, error) {
	switch b := b.(type) {
	case map[string]any:
		k, ok := a.(string)
		if !ok {
			return false, nil
		}
		_, there := b[k]
		return there, nil
	case []any:
		for _, x := range b {
			if same, err := e.equal(a, x); same || err != nil {
				return same, err
			}
		}
		return false, nil
	}
	return nil, errNoType
}

// compare gives -1, 0, 1, or 2 for what has no order (NaN).
func (e *eval) compare(a, b any) (int, error) {
	if c, ok := compareNumbers(a, b); ok {
		return c, nil
	}
	switch a := a.(type) {
	case string:
		if b, ok := b.(string); ok {
			return strings.Compare(a, b), e.spend(min(len(a), len(b)) / 64)
		}
	case []byte:
		if b, ok := b.([]byte); ok {
			return bytes.Compare(a, b), e.spend(min(len(a), len(b)) / 64)
		}
	case bool:
		if b, ok := b.(bool); ok {
			return order(a && !b, !a && b), nil
		}
	case time.Duration:
		if b, ok := b.(time.Duration); ok {
			return order(a > b, a < b), nil
		}
	case time.Time:
		if b, ok := b.(time.Time); ok {
			return a.Compare(b), nil
		}
	}
	return 0, errNoType
}

func order(greater, less bool) int {
	switch {
	case greater:
		return 1
	case less:
		return -1
	}
	return 0
}
