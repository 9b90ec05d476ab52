package admin

import (
	"net/http"
	"regexp"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"sidecar/internal/config"
)

// typePlain is what Envoy sends with the errors of /config_dump.
const typePlain = "text/plain"

func plain(status int, body string) answer {
	return answer{status: status, contentType: typePlain, body: []byte(body)}
}

func (s *Server) serveConfigDump(r *request) answer {
	var names *regexp.Regexp
	if expr, _ := r.query.get("name_regex"); expr != "" {
		if _, err := regexp.Compile(expr); err != nil {
			return plain(http.StatusBadRequest,
				"INVALID_ARGUMENT: Error while parsing name_regex from "+expr+": "+regexProblem(err, expr))
		}
		names = regexp.MustCompile(`\A(?:` + expr + `)\z`) // it compiled
	}
	resource, _ := r.query.get("resource")
	fields, _ := r.query.get("mask")
	var dumps []proto.Message
	for _, d := range s.options.Dumps {
		if d.EDS && !r.query.has("include_eds") {
			continue
		}
		m := d.Get()
		if names != nil {
			keepNamed(m.ProtoReflect(), names)
		}
		dumps = append(dumps, m)
	}
	var out []proto.Message
	var refusal *answer
	if resource != "" {
		out, refusal = pickResource(dumps, resource, fields)
	} else {
		out, refusal = maskDumps(dumps, fields)
	}
	if refusal != nil {
		return *refusal
	}
	dump := &adminv3.ConfigDump{}
	for _, m := range out {
		config.Redact(m)
		a, err := anypb.New(m)
		if err != nil {
			return plain(http.StatusInternalServerError, "cannot be shown: "+err.Error())
		}
		dump.Configs = append(dump.Configs, a)
	}
	return messageAnswer(dump, false)
}

// pickResource returns the elements of the repeated field of that name, whichever dump has it.
func pickResource(dumps []proto.Message, resource, fields string) ([]proto.Message, *answer) {
	for _, m := range dumps {
		fd := m.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(resource))
		if fd == nil {
			continue
		}
		if !fd.IsList() || fd.Message() == nil {
			a := plain(http.StatusBadRequest,
				resource+" is not a repeated field. Use ?mask="+resource+" to get only this field")
			return nil, &a
		}
		k := mask{}
		if fields != "" {
			k = parseMask(fields)
		}
		if !k.fits(fd.Message()) {
			a := plain(http.StatusBadRequest,
				"FieldMask "+fields+" could not be successfully used.")
			return nil, &a
		}
		var out []proto.Message
		list := m.ProtoReflect().Get(fd).List()
		for i := range list.Len() {
			k.apply(list.Get(i).Message())
			out = append(out, list.Get(i).Message().Interface())
		}
		return out, nil
	}
	a := plain(http.StatusNotFound, resource+" not found in config dump")
	return nil, &a
}

// maskDumps applies a mask to the dumps that it fits, and leaves out the others.
func maskDumps(dumps []proto.Message, fields string) ([]proto.Message, *answer) {
	if fields == "" {
		return dumps, nil
	}
	k := parseMask(fields)
	var out []proto.Message
	for _, m := range dumps {
		if k.fits(m.ProtoReflect().Descriptor()) {
			k.apply(m.ProtoReflect())
			out = append(out, m)
		}
	}
	if len(out) == 0 {
		a := plain(http.StatusBadRequest,
			"FieldMask "+fields+" could not be successfully applied to any configs.")
		return nil, &a
	}
	return out, nil
}

// keepNamed takes away, in place, the elements of a dump's lists whose resource has another name.
func keepNamed(m protoreflect.Message, names *regexp.Regexp) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if !fd.IsList() || fd.Message() == nil {
			return true
		}
		n := 0
		for i := range v.List().Len() {
			e := v.List().Get(i)
			if names.MatchString(resourceName(e.Message())) {
				v.List().Set(n, e)
				n++
			}
		}
		v.List().Truncate(n)
		return true
	})
}

// resourceName finds the name of an entry of a dump: its own, or that of the resource inside it.
func resourceName(m protoreflect.Message) string {
	for _, field := range []protoreflect.Name{"name", "cluster_name"} {
		if fd := m.Descriptor().Fields().ByName(field); fd != nil && fd.Kind() == protoreflect.StringKind {
			if name := m.Get(fd).String(); name != "" {
				return name
			}
		}
	}
	name := ""
	m.Range(func(_ protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		inner, isMessage := v.Interface().(protoreflect.Message)
		if !isMessage {
			return true
		}
		if a, isAny := inner.Interface().(*anypb.Any); isAny {
			if opened, err := a.UnmarshalNew(); err == nil {
				name = resourceName(opened.ProtoReflect())
			}
		}
		return name == ""
	})
	return name
}
