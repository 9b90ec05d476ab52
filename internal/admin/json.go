package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"
)

//nolint:gochecknoglobals // immutable
var htmlEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#39;")

// resolver finds the types of Anys. A type that this binary doesn't link is shown without its
// contents; Envoy shows such an Any so, too.
type resolver struct{ *protoregistry.Types }

func (r resolver) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	t, err := r.Types.FindMessageByURL(url)
	if err != nil {
		return (&emptypb.Empty{}).ProtoReflect().Type(), nil //nolint:nilerr // see above
	}
	return t, nil
}

// messageJSON renders a message as Envoy does: proto names, one space of indent. With all set,
// fields that hold their default are shown too.
func messageJSON(m proto.Message, all bool) ([]byte, error) {
	compact, err := protojson.MarshalOptions{
		UseProtoNames: true, EmitDefaultValues: all, AllowPartial: true,
		Resolver: resolver{protoregistry.GlobalTypes},
	}.Marshal(m)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, compact, "", " "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

func messageAnswer(m proto.Message, all bool) answer {
	b, err := messageJSON(m, all)
	if err != nil {
		return text(http.StatusInternalServerError, fmt.Sprintf("cannot be shown: %v\n", err))
	}
	return answer{status: http.StatusOK, contentType: typeJSON, body: b}
}
