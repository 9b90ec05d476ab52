package route

import (
	"sidecar/internal/match"
)

// linearMax is up to how many routes are tried one after the other: cheaper than a tree then.
const linearMax = 8

// paths finds the first route, in the order of configuration, that matches.
type paths struct {
	rules []rule
	// The trees hold indexes into rules. Those of rules that ignore case hold lower-case text.
	plain, folded *node
	// connect are the rules with a connect_matcher, which look at no path.
	connect []int32
}

// node is a part of a path that rules have in common.
type node struct {
	label    string
	children []*node // by first byte of the label
	// rules are those whose text ends here, in order: candidates for whatever goes on from here.
	rules []int32
}

func newPaths(rules []rule) paths {
	t := paths{rules: rules}
	if len(rules) <= linearMax {
		return t
	}
	for i := range rules {
		r := &rules[i]
		switch {
		case r.path.kind == pathConnect:
			t.connect = append(t.connect, int32(i))
		case r.path.fold:
			t.folded = insert(t.folded, match.ToLower(r.path.key()), int32(i))
		default:
			t.plain = insert(t.plain, r.path.key(), int32(i))
		}
	}
	return t
}

// insert adds rule i at the node that text leads to. Rules come in ascending order.
func insert(root *node, text string, i int32) *node {
	if root == nil {
		root = &node{}
	}
	n := root
	for text != "" {
		at, child := n.child(text[0])
		if child == nil {
			leaf := &node{label: text, rules: []int32{i}}
			n.children = append(n.children, nil)
			copy(n.children[at+1:], n.children[at:])
			n.children[at] = leaf
			return root
		}
		common := commonPrefix(child.label, text)
		if common < len(child.label) {
			upper := &node{label: child.label[:common], children: []*node{child}}
			child.label = child.label[common:]
			n.children[at] = upper
			child = upper
		}
		n, text = child, text[common:]
	}
	n.rules = append(n.rules, i)
	return root
}

// child finds the child that begins with c, or where it would be.
func (n *node) child(c byte) (int, *node) {
	lo, hi := 0, len(n.children)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		switch b := n.children[mid].label[0]; {
		case b == c:
			return mid, n.children[mid]
		case b < c:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return lo, nil
}

func commonPrefix(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// find returns the first rule that matches, nil if none does.
func (t *paths) find(q *request) *rule {
	if len(t.rules) <= linearMax {
		for i := range t.rules {
			if t.rules[i].matches(q) {
				return &t.rules[i]
			}
		}
		return nil
	}
	best := int32(len(t.rules))
	if q.hasPath {
		best = t.walk(t.plain, q, best, false)
		best = t.walk(t.folded, q, best, true)
	}
	if q.connect {
		best = t.first(t.connect, q, best)
	}
	if int(best) == len(t.rules) {
		return nil
	}
	return &t.rules[best]
}

// walk follows the path down the tree and returns the first rule on the way that matches, or best
// if that comes before.
func (t *paths) walk(n *node, q *request, best int32, fold bool) int32 {
	rest := q.path
	for n != nil {
		best = t.first(n.rules, q, best)
		if rest == "" {
			break
		}
		c := rest[0]
		if fold {
			c = match.Lower(c)
		}
		_, n = n.child(c)
		if n == nil || len(rest) < len(n.label) {
			break
		}
		head := rest[:len(n.label)]
		if head != n.label && !(fold && match.EqualFold(head, n.label)) {
			break
		}
		rest = rest[len(n.label):]
	}
	return best
}

func (t *paths) first(list []int32, q *request, best int32) int32 {
	for _, i := range list {
		if i >= best {
			break
		}
		if t.rules[i].matches(q) {
			return i
		}
	}
	return best
}
