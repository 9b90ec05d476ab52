package cel

import (
	"errors"
	"fmt"
	"strings"
)

// Limits of an expression: what is beyond them does not compile.
const (
	maxSource = 64 << 10
	maxDepth  = 100
)

type op uint8

const (
	opConst  op = iota
	opIdent     // name
	opSelect    // args[0].name
	opIndex     // args[0][args[1]]
	opCall      // name(args...); with member, args[0].name(args[1:]...)
	opList
	opMap  // args are keys and values in turn
	opHas  // args[0] is an opSelect
	opFold // a macro: name, args[0] the range, args[1] the body, args[2] a transform; variable
	opAnd
	opOr
	opCond
	opNot
	opNeg
	opBinary // name is the operator
)

type node struct {
	op       op
	name     string
	variable string
	value    any
	args     []*node
	member   bool
	path     string // of a chain of selections from an identifier, separated by NUL; "" for others
	dynamic  bool   // the chain's root is a macro's variable
}

// Program is a compiled expression. It is immutable and may be used from any goroutine.
type Program struct{ root *node }

type parser struct {
	lexer
	tok   token
	depth int
	vars  []string
}

// Compile parses an expression.
func Compile(source string) (*Program, error) {
	if len(source) > maxSource {
		return nil, errors.New("the expression is too long")
	}
	p := &parser{lexer: lexer{src: source}}
	if err := p.advance(); err != nil {
		return nil, err
	}
	n, err := p.expr()
	if err != nil {
		return nil, err
	}
	if p.tok.kind != end {
		return nil, p.errorf(p.tok.at, "unexpected %q", p.tok.text)
	}
	return &Program{n}, nil
}

func (p *parser) advance() (err error) {
	p.tok, err = p.next()
	return err
}

func (p *parser) is(text string) bool { return p.tok.kind == punct && p.tok.text == text }

func (p *parser) accept(text string) (bool, error) {
	if !p.is(text) {
		return false, nil
	}
	return true, p.advance()
}

func (p *parser) expect(text string) error {
	if !p.is(text) {
		return p.errorf(p.tok.at, "%q expected", text)
	}
	return p.advance()
}

func (p *parser) enter() error {
	if p.depth++; p.depth > maxDepth {
		return p.errorf(p.tok.at, "nested too deeply")
	}
	return nil
}

func (p *parser) leave() { p.depth-- }

func (p *parser) expr() (*node, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	n, err := p.binary(0)
	if err != nil {
		return nil, err
	}
	if ok, err := p.accept("?"); !ok || err != nil {
		return n, err
	}
	yes, err := p.binary(0)
	if err != nil {
		return nil, err
	}
	if err := p.expect(":"); err != nil {
		return nil, err
	}
	no, err := p.expr()
	return &node{op: opCond, args: []*node{n, yes, no}}, err
}

// levels are the binary operators, weakest first.
func levels(i int) []string {
	return [...][]string{
		{"||"}, {"&&"}, {"==", "!=", "<", "<=", ">", ">=", "in"}, {"+", "-"}, {"*", "/", "%"},
	}[i]
}

const numLevels = 5

func (p *parser) operator(level int) string {
	for _, o := range levels(level) {
		if p.is(o) || (o == "in" && p.tok.kind == ident && p.tok.text == o) {
			return o
		}
	}
	return ""
}

func (p *parser) binary(level int) (*node, error) {
	if level == numLevels {
		return p.unary()
	}
	n, err := p.binary(level + 1)
	for count := 0; err == nil; count++ {
		o := p.operator(level)
		if o == "" {
			return n, nil
		}
		if count > 1000 {
			return nil, p.errorf(p.tok.at, "too many operators")
		}
		if err = p.advance(); err != nil {
			break
		}
		var right *node
		if right, err = p.binary(level + 1); err != nil {
			break
		}
		switch o {
		case "||":
			n = &node{op: opOr, args: []*node{n, right}}
		case "&&":
			n = &node{op: opAnd, args: []*node{n, right}}
		default:
			n = &node{op: opBinary, name: o, args: []*node{n, right}}
		}
	}
	return nil, err
}

func (p *parser) unary() (*node, error) {
	o := opNot
	switch {
	case p.is("-"):
		o = opNeg
	case !p.is("!"):
		return p.member()
	}
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	if err := p.advance(); err != nil {
		return nil, err
	}
	// -9223372036854775808 has no positive counterpart.
	if o == opNeg && p.tok.kind == intLit && p.tok.num == 1<<63 {
		p.tok = token{kind: uintLit, num: 1 << 63, at: p.tok.at, text: "min"}
	}
	n, err := p.unary()
	return &node{op: o, args: []*node{n}}, err
}

func (p *parser) member() (*node, error) {
	n, err := p.primary()
	for count := 0; err == nil; count++ {
		if count > 1000 {
			return nil, p.errorf(p.tok.at, "too many selections")
		}
		switch {
		case p.is("."):
			n, err = p.selection(n)
		case p.is("["):
			if err = p.advance(); err != nil {
				break
			}
			var index *node
			if index, err = p.expr(); err != nil {
				break
			}
			n = &node{op: opIndex, args: []*node{n, index}}
			if key, ok := index.value.(string); ok && index.op == opConst {
				n.path = join(n.args[0].path, key)
			}
			n.dynamic = n.args[0].dynamic
			err = p.expect("]")
		default:
			return n, nil
		}
	}
	return nil, err
}

func join(path, name string) string {
	if path == "" {
		return ""
	}
	return path + "\x00" + name
}

func (p *parser) selection(operand *node) (*node, error) {
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.tok.kind != ident {
		return nil, p.errorf(p.tok.at, "a name expected")
	}
	name, at := p.tok.text, p.tok.at
	if err := p.advance(); err != nil {
		return nil, err
	}
	if !p.is("(") {
		return &node{
			op: opSelect, name: name, args: []*node{operand}, path: join(operand.path, name), dynamic: operand.dynamic,
		}, nil
	}
	switch name {
	case "exists", "all", "exists_one", "map", "filter":
		return p.macro(operand, name, at)
	}
	args, err := p.list("(", ")")
	return p.call(name, append([]*node{operand}, args...), true, at, err)
}

func (p *parser) call(name string, args []*node, member bool, at int, err error) (*node, error) {
	if err == nil && !known(name, len(args)) {
		err = p.errorf(at, "no function %q with %d arguments", name, len(args))
	}
	return &node{op: opCall, name: name, args: args, member: member}, err
}

// macro reads range.name(variable, body): the variable hides attributes of its name.
func (p *parser) macro(operand *node, name string, at int) (*node, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	if p.tok.kind != ident {
		return nil, p.errorf(at, "%s: a variable expected", name)
	}
	n := &node{op: opFold, name: name, variable: p.tok.text, args: []*node{operand}}
	if err := p.advance(); err != nil {
		return nil, err
	}
	p.vars = append(p.vars, n.variable)
	defer func() { p.vars = p.vars[:len(p.vars)-1] }()
	for p.is(",") {
		if err := p.advance(); err != nil {
			return nil, err
		}
		arg, err := p.expr()
		if err != nil {
			return nil, err
		}
		n.args = append(n.args, arg)
	}
	if len(n.args) != 2 && (len(n.args) != 3 || name != "map") {
		return nil, p.errorf(at, "%s: a wrong number of arguments", name)
	}
	return n, p.expect(")")
}

func (p *parser) list(open, closing string) ([]*node, error) {
	if err := p.expect(open); err != nil {
		return nil, err
	}
	var out []*node
	for !p.is(closing) {
		n, err := p.expr()
		if err != nil {
			return nil, err
		}
		out = append(out, n)
		if ok, err := p.accept(","); err != nil {
			return nil, err
		} else if !ok {
			break
		}
	}
	return out, p.expect(closing)
}

func (p *parser) primary() (*node, error) {
	t := p.tok
	switch t.kind {
	case intLit, uintLit, floatLit, stringLit, bytesLit:
		v, err := literal(t)
		if err != nil {
			return nil, p.errorf(t.at, "%v", err)
		}
		return &node{op: opConst, value: v}, p.advance()
	case ident:
		return p.name()
	case punct:
		switch t.text {
		case "(":
			if err := p.advance(); err != nil {
				return nil, err
			}
			n, err := p.expr()
			if err != nil {
				return nil, err
			}
			return n, p.expect(")")
		case "[":
			args, err := p.list("[", "]")
			return &node{op: opList, args: args}, err
		case "{":
			return p.mapLiteral()
		case ".":
			if err := p.advance(); err != nil {
				return nil, err
			}
			return p.name()
		}
	case end:
		return nil, p.errorf(t.at, "the expression ends early")
	}
	return nil, p.errorf(t.at, "unexpected %q", t.text)
}

func literal(t token) (any, error) {
	switch t.kind {
	case intLit:
		if t.num > 1<<63-1 {
			return nil, errors.New("the number is too large")
		}
		return int64(t.num), nil
	case uintLit:
		if t.text == "min" {
			return minInt{}, nil
		}
		return t.num, nil
	case floatLit:
		return t.f, nil
	case bytesLit:
		return []byte(t.text), nil
	default:
		return t.text, nil
	}
}

// minInt stands for the number whose negation is the smallest integer.
type minInt struct{}

func (p *parser) name() (*node, error) {
	name, at := p.tok.text, p.tok.at
	if p.tok.kind != ident {
		return nil, p.errorf(at, "a name expected")
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	switch name {
	case "true", "false":
		return &node{op: opConst, value: name == "true"}, nil
	case "null":
		return &node{op: opConst}, nil
	case "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop",
		"package", "namespace", "return", "var", "void", "while":
		return nil, p.errorf(at, "%q is reserved", name)
	}
	if !p.is("(") {
		n := &node{op: opIdent, name: name, path: name}
		for _, v := range p.vars {
			n.dynamic = n.dynamic || v == name
		}
		return n, nil
	}
	args, err := p.list("(", ")")
	if err == nil && name == "has" {
		if len(args) != 1 || (args[0].op != opSelect && args[0].op != opIndex) {
			return nil, p.errorf(at, "has: a selection expected")
		}
		return &node{op: opHas, args: args}, nil
	}
	return p.call(name, args, false, at, err)
}

func (p *parser) mapLiteral() (*node, error) {
	if err := p.expect("{"); err != nil {
		return nil, err
	}
	n := &node{op: opMap}
	for !p.is("}") {
		key, err := p.expr()
		if err != nil {
			return nil, err
		}
		if err := p.expect(":"); err != nil {
			return nil, err
		}
		value, err := p.expr()
		if err != nil {
			return nil, err
		}
		n.args = append(n.args, key, value)
		if ok, err := p.accept(","); err != nil {
			return nil, err
		} else if !ok {
			break
		}
	}
	return n, p.expect("}")
}

// String gives an expression's shape, for tests.
func (n *node) String() string {
	if n.op == opConst {
		return fmt.Sprintf("%v", n.value)
	}
	parts := make([]string, 0, len(n.args))
	for _, a := range n.args {
		parts = append(parts, a.String())
	}
	return fmt.Sprintf("%d:%s%s(%s)", n.op, n.variable, n.name, strings.Join(parts, ","))
}
