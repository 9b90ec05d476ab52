package config

import (
	"errors"
	"fmt"
	"strings"

	udpav1 "github.com/cncf/xds/go/udpa/type/v1"
	xdsv3 "github.com/cncf/xds/go/xds/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// typedStruct is what the two TypedStruct messages have in common.
type typedStruct interface {
	proto.Message
	GetTypeUrl() string
	GetValue() *structpb.Struct
}

// TypeName tells which message a typed_config holds: the one that a TypedStruct stands for, if it
// is one; empty if there is none or it can't be read.
func TypeName(a *anypb.Any) protoreflect.FullName {
	if ts := asTypedStruct(a); ts != nil {
		return nameOf(ts.GetTypeUrl())
	}
	return nameOf(a.GetTypeUrl())
}

func nameOf(url string) protoreflect.FullName {
	return protoreflect.FullName(url[strings.LastIndexByte(url, '/')+1:])
}

// errUnknownType is the beginning of what UnknownType says.
var errUnknownType = errors.New("no extension takes the type")

// UnknownType is the error for a typed_config that holds no message that its place has a use for,
// in the words in which loading refuses types that aren't linked: the user reads it once.
func UnknownType(a *anypb.Any) error {
	url := a.GetTypeUrl()
	if ts := asTypedStruct(a); ts != nil {
		url = ts.GetTypeUrl()
	}
	if url == "" {
		return errRequired
	}
	return fmt.Errorf("%w %q", errUnknownType, url)
}

var errRequired = errors.New("is required")

func asTypedStruct(a *anypb.Any) typedStruct {
	var ts typedStruct
	switch nameOf(a.GetTypeUrl()) {
	case "udpa.type.v1.TypedStruct":
		ts = &udpav1.TypedStruct{}
	case "xds.type.v3.TypedStruct":
		ts = &xdsv3.TypedStruct{}
	default:
		return nil
	}
	if proto.Unmarshal(a.GetValue(), ts) != nil {
		return nil
	}
	return ts
}

// Open gives the message that a typed_config holds, of whichever linked type, a TypedStruct turned
// into what it stands for. The constraints of the message are not checked yet: see [Validate].
// Unknown fields are no error here, see [CheckUnknown].
func Open(a *anypb.Any) (proto.Message, error) {
	msg, err := open(a, IgnoreUnknown)
	if err != nil {
		return nil, err
	}
	return msg, nil
}

// open gives a message along with the errors of a TypedStruct's fields, or nil if there is nothing.
func open(a *anypb.Any, unknown Unknown) (proto.Message, error) {
	if a.GetTypeUrl() == "" {
		return nil, &Error{Err: errRequired}
	}
	ts := asTypedStruct(a)
	url := a.GetTypeUrl()
	if ts != nil {
		url = ts.GetTypeUrl()
	}
	mt, err := protoregistry.GlobalTypes.FindMessageByURL(url)
	if err != nil {
		return nil, &Error{Err: UnknownType(a)}
	}
	msg := mt.New().Interface()
	if ts == nil {
		if err := (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal(a.GetValue(), msg); err != nil {
			return nil, &Error{Err: fmt.Errorf("is not a %s: %w", nameOf(url), err)}
		}
		return msg, nil
	}
	var errs Errors
	d := decoder{unknown: unknown, errs: &errs}
	d.message(nil, structNode(ts.GetValue(), 0), msg.ProtoReflect(), 0)
	return msg, errs.Err()
}

// OpenAs opens a typed_config that must hold an M, and checks M's own constraints. It reports what
// is wrong at p and below, and tells whether msg can be used.
func OpenAs[M proto.Message](p *Path, a *anypb.Any, errs *Errors) (msg M, ok bool) {
	opened, err := Open(a)
	if err != nil {
		errs.Wrap(p, err)
		return msg, false
	}
	msg, ok = opened.(M)
	if !ok {
		errs.Addf(p, "must be a %s, not a %s", msg.ProtoReflect().Descriptor().FullName(),
			opened.ProtoReflect().Descriptor().FullName())
		return msg, false
	}
	before := errs.Len()
	Validate(p, msg, errs)
	return msg, errs.Len() == before
}
