package format

import (
	"errors"
	"maps"
	"slices"

	"google.golang.org/protobuf/types/known/structpb"

	"sidecar/api/stream"
	"sidecar/internal/config"
)

// JSON is a compiled json_format. It is immutable and may be used from any goroutine.
type JSON struct {
	root      *node
	omitEmpty bool
}

// CompileJSON compiles a json_format. A string that is one operator has that operator's type, so a
// response code is a number; any other is a string. Keys come out sorted, as in Envoy. The error
// joins all that is wrong, each with the path inside the format.
func CompileJSON(s *structpb.Struct, o Options) (*JSON, error) {
	root, err := compileObject(s, config.Field("json_format"), &o)
	if err != nil {
		return nil, err
	}
	return &JSON{root: root, omitEmpty: o.OmitEmpty}, nil
}

// Append appends the formatted object and a newline.
func (j *JSON) Append(dst []byte, in *stream.Info) []byte {
	n := len(dst)
	dst, ok := j.root.append(dst, in, j.omitEmpty)
	if !ok {
		dst = append(dst[:n], '{', '}')
	}
	return append(dst, '\n')
}

type nodeKind uint8

const (
	literalNode nodeKind = iota // lit, JSON as it is
	nullNode
	valueNode  // ops[0], with its own type
	stringNode // ops joined in a string
	objectNode
	listNode
)

type node struct {
	kind nodeKind
	lit  string
	ops  []op
	keys []string // of an object: quoted, with the colon
	sub  []*node
}

func compileValue(v *structpb.Value, at *config.Path, o *Options) (*node, error) {
	switch k := v.GetKind().(type) {
	case *structpb.Value_StructValue:
		return compileObject(k.StructValue, at, o)
	case *structpb.Value_ListValue:
		n := &node{kind: listNode}
		var errs []error
		for i, e := range k.ListValue.GetValues() {
			sub, err := compileValue(e, at.Index(i), o)
			errs = append(errs, err)
			n.sub = append(n.sub, sub)
		}
		return n, errors.Join(errs...)
	case *structpb.Value_StringValue:
		ops, err := parse(k.StringValue, o)
		if err != nil {
			return nil, &config.Error{Path: at.String(), Err: err}
		}
		return compileString(ops), nil
	case *structpb.Value_NumberValue, *structpb.Value_BoolValue:
		return &node{lit: string(AppendJSON(nil, v.AsInterface()))}, nil
	}
	return &node{kind: nullNode}, nil
}

func compileString(ops []op) *node {
	if len(ops) == 1 && ops[0].text != nil {
		return &node{kind: valueNode, ops: ops}
	}
	n := &node{kind: stringNode, ops: ops}
	for i := range ops {
		if ops[i].text == nil {
			ops[i].lit = string(escapeFrom([]byte(ops[i].lit), 0))
		}
	}
	return n
}

func compileObject(s *structpb.Struct, at *config.Path, o *Options) (*node, error) {
	n := &node{kind: objectNode}
	var errs []error
	for _, k := range slices.Sorted(maps.Keys(s.GetFields())) {
		sub, err := compileValue(s.GetFields()[k], at.Key(k), o)
		errs = append(errs, err)
		n.keys = append(n.keys, string(append(appendQuoted(nil, k), ':')))
		n.sub = append(n.sub, sub)
	}
	return n, errors.Join(errs...)
}

// append reports false when the node is to be left out, as empty values are if omitEmpty is set.
func (n *node) append(dst []byte, in *stream.Info, omitEmpty bool) ([]byte, bool) {
	switch n.kind {
	case literalNode:
		return append(dst, n.lit...), true
	case valueNode:
		start := len(dst)
		if dst, ok := n.ops[0].appendJSON(dst, in); ok {
			return dst, true
		}
		return append(dst[:start], "null"...), !omitEmpty
	case stringNode:
		dst = append(dst, '"')
		for i := range n.ops {
			if n.ops[i].text == nil {
				dst = append(dst, n.ops[i].lit...)
				continue
			}
			start := len(dst)
			dst = escapeFrom(n.ops[i].appendText(dst, in, omitEmpty), start)
		}
		return append(dst, '"'), true
	case objectNode:
		return n.appendObject(dst, in, omitEmpty)
	case listNode:
		return n.appendList(dst, in, omitEmpty), true
	case nullNode:
	}
	return append(dst, "null"...), !omitEmpty
}

func (n *node) appendObject(dst []byte, in *stream.Info, omitEmpty bool) ([]byte, bool) {
	dst = append(dst, '{')
	empty := true
	for i, sub := range n.sub {
		mark := len(dst)
		if !empty {
			dst = append(dst, ',')
		}
		dst = append(dst, n.keys[i]...)
		var ok bool
		if dst, ok = sub.append(dst, in, omitEmpty); !ok {
			dst = dst[:mark]
			continue
		}
		empty = false
	}
	return append(dst, '}'), !empty || !omitEmpty
}

func (n *node) appendList(dst []byte, in *stream.Info, omitEmpty bool) []byte {
	dst = append(dst, '[')
	empty := true
	for _, sub := range n.sub {
		mark := len(dst)
		if !empty {
			dst = append(dst, ',')
		}
		var ok bool
		if dst, ok = sub.append(dst, in, omitEmpty); !ok {
			dst = dst[:mark]
			continue
		}
		empty = false
	}
	return append(dst, ']')
}

// appendJSON appends the operator's value with its own type.
func (o *op) appendJSON(dst []byte, in *stream.Info) ([]byte, bool) {
	if o.json != nil {
		return o.json(dst, in)
	}
	if o.raw {
		return o.text(dst, in)
	}
	dst = append(dst, '"')
	n := len(dst)
	dst, ok := o.text(dst, in)
	if !ok {
		return dst, false
	}
	if o.max >= 0 && len(dst)-n > o.max {
		dst = dst[:n+o.max]
	}
	return append(escapeFrom(dst, n), '"'), true
}
