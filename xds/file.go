package xds

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"

	"sidecar/internal/config/source"
	"sidecar/xds/transport"
)

// fileFeed is a feed from a file that holds a DiscoveryResponse.
type fileFeed struct {
	*feed
	key  string
	path string
	file *transport.File
	last *response // for those who come late
}

func (c *Client) fileFeed(src *source.ConfigSource, k kind) (*feed, error) {
	key := k.url + "\x00" + src.Key
	if f := c.files[key]; f != nil {
		return f.feed, nil
	}
	if c.watcher == nil {
		w, err := transport.NewFiles(c.cfg.Log)
		if err != nil {
			return nil, err
		}
		c.watcher = w
	}
	f := &fileFeed{feed: newFeed(c, k), key: key, path: src.Path}
	f.port = f
	var err error
	f.file, err = c.watcher.Watch(src.Path, src.WatchedDirectory, f.loaded)
	if err != nil {
		return nil, err
	}
	c.files[key] = f
	return f.feed, nil
}

// interest implements port: names that nobody wanted when the file was read were skipped then.
func (f *fileFeed) interest() {
	if f.last == nil {
		return
	}
	late := &response{version: f.last.version}
	for _, it := range f.last.items {
		if f.entries[it.name] == nil && len(f.want(it.name)) > 0 {
			late.items = append(late.items, it)
		}
	}
	if len(late.items) > 0 {
		f.apply(late)
	}
}

// replied implements port: a file can't be answered.
func (f *fileFeed) replied(*reply) {}

// unused implements port.
func (f *fileFeed) unused() {
	f.file.Close()
	delete(f.c.files, f.key)
}

// loaded runs on the goroutine of the file watch: a big file is parsed there.
func (f *fileFeed) loaded(data []byte, err error) {
	var resp *response
	if err == nil {
		resp, err = f.kind.decodeFile(f.path, data, f.c.cfg.RejectUnknownFields)
	}
	f.c.post(func() {
		if f.c.files[f.key] != f {
			return
		}
		if err != nil {
			f.failed(err)
			return
		}
		f.last = resp
		f.apply(resp)
	})
}

func (f *fileFeed) failed(err error) {
	f.c.cfg.Log.Warn("xds: file not usable", "path", f.path, "error", err)
	f.each((*subscription).failed)
	f.each(func(s *subscription) { s.unavailable(fmt.Errorf("%s: %w", f.path, err)) })
}

var errEmptyFile = errors.New("empty")

// decodeFile parses a DiscoveryResponse: protobuf (.pb), its text form (.pb_text), else YAML, of
// which JSON is a part.
//
// DIVERGES(xds-file-partial): resources of YAML and JSON are parsed one by one, so that a bad one
// doesn't take the others along; in Envoy a type that it doesn't know makes the whole file useless.
func (k *kind) decodeFile(path string, data []byte, strict bool) (*response, error) {
	if len(data) == 0 {
		// Somebody is about to write it. Read as a message it would remove everything.
		return nil, errEmptyFile
	}
	switch filepath.Ext(path) {
	case ".pb":
		var m discoveryv3.DiscoveryResponse
		if err := proto.Unmarshal(data, &m); err != nil {
			return nil, err
		}
		return k.fileResponse(&m)
	case ".pb_text":
		var m discoveryv3.DiscoveryResponse
		if err := (prototext.UnmarshalOptions{DiscardUnknown: !strict}).Unmarshal(data, &m); err != nil {
			return nil, err
		}
		return k.fileResponse(&m)
	}
	return k.decodeYAML(data, strict)
}

func (k *kind) fileResponse(m *discoveryv3.DiscoveryResponse) (*response, error) {
	if err := k.checkFileType(m.GetTypeUrl()); err != nil {
		return nil, err
	}
	resp := &response{version: m.GetVersionInfo(), sotw: true}
	for _, a := range m.GetResources() {
		resp.items = append(resp.items, k.openAny(a, m.GetVersionInfo()))
	}
	return resp, nil
}

func (k *kind) checkFileType(url string) error {
	if url != "" && url != k.url {
		return fmt.Errorf("type_url: %s, want %s", url, k.url)
	}
	return nil
}

func (k *kind) decodeYAML(data []byte, strict bool) (*response, error) {
	js, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, err
	}
	var top map[string]json.RawMessage
	if err := json.Unmarshal(js, &top); err != nil {
		return nil, err
	}
	resources := top["resources"]
	delete(top, "resources")
	rest, err := json.Marshal(top)
	if err != nil {
		return nil, err
	}
	var m discoveryv3.DiscoveryResponse
	if err := (protojson.UnmarshalOptions{DiscardUnknown: !strict}).Unmarshal(rest, &m); err != nil {
		return nil, err
	}
	resp, err := k.fileResponse(&m)
	if err != nil || resources == nil {
		return resp, err
	}
	var list []json.RawMessage
	if err := json.Unmarshal(resources, &list); err != nil {
		return nil, fmt.Errorf("resources: %w", err)
	}
	for _, raw := range list {
		resp.items = append(resp.items, k.decodeJSON(raw, m.GetVersionInfo(), strict))
	}
	return resp, nil
}

// decodeJSON reads one resource.
func (k *kind) decodeJSON(raw json.RawMessage, version string, strict bool) item {
	var a anypb.Any
	opts := protojson.UnmarshalOptions{DiscardUnknown: !strict}
	if err := opts.Unmarshal(raw, &a); err != nil {
		return item{name: jsonName(raw), err: errors.New(cleanJSONError(err))}
	}
	// The bytes of equal text must be equal, or all would be decoded and compared at each reading.
	return k.openAny(&a, version)
}

// jsonName reads the name of a resource that can't be read as a whole.
func jsonName(raw json.RawMessage) string {
	var n struct {
		Name         string `json:"name"`
		ClusterName  string `json:"cluster_name"`
		ClusterName2 string `json:"clusterName"`
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if d.Decode(&n) != nil {
		return ""
	}
	for _, name := range []string{n.Name, n.ClusterName, n.ClusterName2} {
		if name != "" {
			return name
		}
	}
	return ""
}

// cleanJSONError takes the parser's position out: it is that in a JSON text which nobody has seen.
func cleanJSONError(err error) string {
	msg := strings.TrimPrefix(err.Error(), "proto:")
	msg = strings.TrimLeft(msg, " \u00a0")
	if rest, ok := strings.CutPrefix(msg, "(line "); ok {
		if _, after, ok := strings.Cut(rest, "): "); ok {
			msg = after
		}
	}
	return msg
}
