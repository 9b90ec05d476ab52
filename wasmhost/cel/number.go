package cel

import (
	"cmp"
	"errors"
	"math"
	"math/big"
	"time"
)

var errRange = errors.New("the result is out of range")

// compareNumbers compares integers and doubles by their values: false if one is neither. 2 stands for
// what has no order.
func compareNumbers(a, b any) (int, bool) {
	switch x := a.(type) {
	case int64:
		switch y := b.(type) {
		case int64:
			return cmp.Compare(x, y), true
		case uint64:
			if x < 0 {
				return -1, true
			}
			return cmp.Compare(uint64(x), y), true
		case float64:
			return compareFloat(new(big.Float).SetInt64(x), y), true
		}
	case uint64:
		switch y := b.(type) {
		case int64:
			c, _ := compareNumbers(b, a)
			return -c, true
		case uint64:
			return cmp.Compare(x, y), true
		case float64:
			return compareFloat(new(big.Float).SetUint64(x), y), true
		}
	case float64:
		switch y := b.(type) {
		case int64, uint64:
			c, _ := compareNumbers(b, a)
			if c != 2 {
				c = -c
			}
			return c, true
		case float64:
			switch {
			case math.IsNaN(x) || math.IsNaN(y):
				return 2, true
			default:
				return cmp.Compare(x, y), true
			}
		}
	}
	return 0, false
}

func compareFloat(x *big.Float, y float64) int {
	switch {
	case math.IsNaN(y):
		return 2
	case math.IsInf(y, 1):
		return -1
	case math.IsInf(y, -1):
		return 1
	}
	return x.Cmp(new(big.Float).SetFloat64(y))
}

func negate(v any) (any, error) {
	switch v := v.(type) {
	case minInt:
		return int64(math.MinInt64), nil
	case int64:
		if v == math.MinInt64 {
			return nil, errRange
		}
		return -v, nil
	case float64:
		return -v, nil
	}
	return nil, errNoType
}

// arithmetic is all operators but the plus, which is for more than numbers.
func arithmetic(name string, a, b any) (any, error) {
	switch x := a.(type) {
	case int64:
		if y, ok := b.(int64); ok {
			return intArithmetic(name, x, y)
		}
	case uint64:
		if y, ok := b.(uint64); ok {
			return uintArithmetic(name, x, y)
		}
	case float64:
		if y, ok := b.(float64); ok {
			switch name {
			case "-":
				return x - y, nil
			case "*":
				return x * y, nil
			case "/":
				return x / y, nil
			}
		}
	case time.Duration:
		if y, ok := b.(time.Duration); ok && name == "-" {
			d, err := intArithmetic("-", int64(x), int64(y))
			return asDuration(d, err)
		}
	case time.Time:
		if name == "-" {
			switch y := b.(type) {
			case time.Time:
				return x.Sub(y), nil
			case time.Duration:
				return x.Add(-y), nil
			}
		}
	}
	return nil, errNoType
}

func asDuration(v any, err error) (any, error) {
	if n, ok := v.(int64); ok {
		return time.Duration(n), err
	}
	return nil, err
}

var errZero = errors.New("division by zero")

func intArithmetic(name string, x, y int64) (any, error) {
	switch name {
	case "+":
		if s := x + y; (s > x) == (y > 0) {
			return s, nil
		}
	case "-":
		if s := x - y; (s < x) == (y > 0) {
			return s, nil
		}
	case "*":
		if x == 0 || y == 0 {
			return int64(0), nil
		}
		if s := x * y; s/y == x && (x != -1 || y != math.MinInt64) && (y != -1 || x != math.MinInt64) {
			return s, nil
		}
	case "/", "%":
		switch {
		case y == 0:
			return nil, errZero
		case y == -1 && x == math.MinInt64:
		case name == "/":
			return x / y, nil
		default:
			return x % y, nil
		}
	}
	return nil, errRange
}

func uintArithmetic(name string, x, y uint64) (any, error) {
	switch name {
	case "+":
		if s := x + y; s >= x {
			return s, nil
		}
	case "-":
		if y <= x {
			return x - y, nil
		}
	case "*":
		if x == 0 || x*y/x == y {
			return x * y, nil
		}
	case "/", "%":
		switch {
		case y == 0:
			return nil, errZero
		case name == "/":
			return x / y, nil
		}
		return x % y, nil
	}
	return nil, errRange
}

// maxBytes bounds what adding makes.
const maxBytes = 1 << 20

func (e *eval) add(a, b any) (any, error) {
	switch x := a.(type) {
	case int64:
		if y, ok := b.(int64); ok {
			return intArithmetic("+", x, y)
		}
	case uint64:
		if y, ok := b.(uint64); ok {
			return uintArithmetic("+", x, y)
		}
	case float64:
		if y, ok := b.(float64); ok {
			return x + y, nil
		}
	case string:
		if y, ok := b.(string); ok && len(x)+len(y) <= maxBytes {
			return x + y, e.spend((len(x) + len(y)) / 64)
		}
	case []byte:
		if y, ok := b.([]byte); ok && len(x)+len(y) <= maxBytes {
			return append(append([]byte{}, x...), y...), e.spend((len(x) + len(y)) / 64)
		}
	case []any:
		if y, ok := b.([]any); ok && len(x)+len(y) <= maxBytes/16 {
			return append(append([]any{}, x...), y...), e.spend(len(x) + len(y))
		}
	case time.Duration:
		switch y := b.(type) {
		case time.Duration:
			return asDuration(intArithmetic("+", int64(x), int64(y)))
		case time.Time:
			return y.Add(x), nil
		}
	case time.Time:
		if y, ok := b.(time.Duration); ok {
			return x.Add(y), nil
		}
	}
	return nil, errNoType
}
