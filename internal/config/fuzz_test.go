package config

import (
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// FuzzJSON holds the decoder against protojson: what both take they read alike, what protojson
// takes we take (unless we are stricter on purpose), and what we take beyond it we know of.
func FuzzJSON(f *testing.F) {
	for _, tt := range accepted {
		if tt.format == JSON {
			f.Add(tt.doc)
		}
	}
	for _, tt := range refused {
		if tt.format == JSON {
			f.Add(tt.doc)
		}
	}
	for _, s := range []string{
		`{"node":{"id":"a","id":"b"}}`, `{"node":{"metadata":{"a":[1,null,{"b":1e308}]}}}`,
		`{"static_resources":{"clusters":[{"connectTimeout":"1.000000001s","lbPolicy":3}]}}`,
		`{"bootstrapExtensions":[{"typedConfig":{"@type":"a/google.protobuf.Any","value":{"@type":"b/google.protobuf.Duration","value":"3s"}}}]}`,
		`{"stats_server_version_override":"18446744073709551615","watchdog":{"multikill_threshold":{"value":"NaN"}}}`,
		`{"stats_server_version_override":1.8e19,"certificate_provider_instances":{"x":{}}}`,
		`{"enable_dispatcher_stats":"true"}`, `{"node":{"locality":null},"admin":{"access_log":[null]}}`,
		`{"static_resources":{"secrets":[{"generic_secret":{"secret":{"inline_bytes":"_-8="}}}]}}`,
		`{"node":{"id":"\u0000\ud800"}}`, `{"overload_manager":{"actions":[{"triggers":[{"threshold":{"value":-0}}]}]}}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, doc string) {
		var ours, theirs bootstrapv3.Bootstrap
		root, duplicates, err := parseJSON([]byte(doc))
		var errs Errors
		d := decoder{errs: &errs}
		if err == nil {
			d.message(nil, root, ours.ProtoReflect(), 0)
			err = errs.Err()
		}
		theirErr := protojson.UnmarshalOptions{AllowPartial: true}.Unmarshal([]byte(doc), &theirs)
		if err != nil || theirErr != nil {
			// Names of extension fields, depth, and JSON that protojson tokenizes more freely are
			// the only things that they may take and we don't; the other way round we know each
			// case.
			if err == nil && d.lenient == 0 && len(duplicates) == 0 {
				t.Fatalf("taken, and protojson says: %v", theirErr)
			}
			return
		}
		if d.lenient == 0 && len(duplicates) == 0 && !proto.Equal(&ours, &theirs) && !hasNaN(doc) {
			t.Fatalf("ours: %v\ntheirs: %v", &ours, &theirs)
		}
	})
}

// hasNaN: proto.Equal takes NaN for equal, but not inside the bytes of an Any, whose NaN may differ
// in sign.
func hasNaN(doc string) bool {
	for i := 0; i+3 <= len(doc); i++ {
		if doc[i:i+3] == "NaN" {
			return true
		}
	}
	return false
}

// FuzzYAML holds that nothing that is written makes us panic, and that what is taken survives being
// written as JSON and read again.
func FuzzYAML(f *testing.F) {
	for _, tt := range accepted {
		if tt.format == YAML {
			f.Add(tt.doc)
		}
	}
	for _, tt := range refused {
		if tt.format == YAML {
			f.Add(tt.doc)
		}
	}
	f.Add("a: &a\n  b: *a\n")
	f.Add("? [a, b]\n: c\n")
	f.Add("%YAML 1.2\n---\n!!map {a: !!str 1}\n...\n")
	f.Fuzz(func(t *testing.T, doc string) {
		var msg, again bootstrapv3.Bootstrap
		_, err := Parse("f", YAML, []byte(doc), &msg, RejectUnknown)
		if err != nil {
			Locate("f", YAML, []byte(doc), err)
			return
		}
		text, err := protojson.MarshalOptions{AllowPartial: true}.Marshal(&msg)
		if err != nil {
			return // a Duration out of range, in a value that null or a list made
		}
		if _, err := Parse("f", JSON, text, &again, RejectUnknown); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if !proto.Equal(&msg, &again) && !hasNaN(doc) {
			t.Fatalf("%v\n%v", &msg, &again)
		}
	})
}

// FuzzBinary holds that CheckUnknown and Validate take any bytes.
func FuzzBinary(f *testing.F) {
	f.Add([]byte("\xfa\x7f\x01a"))
	f.Add([]byte("\x0a\x03\x0a\x01a"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		var msg bootstrapv3.Bootstrap
		if _, err := Parse("f", Binary, data, &msg, RejectUnknown); err != nil {
			return
		}
		var errs Errors
		Validate(nil, &msg, &errs)
	})
}
