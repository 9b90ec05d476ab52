package xds

import (
	"errors"
	"fmt"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/internal/config"
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

// tell implements port: a file isn't asked.
func (f *fileFeed) tell() { clear(f.left) }

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
	var warnings []error
	if err == nil {
		resp, warnings, err = f.kind.decodeFile(f.path, data, f.c.cfg.RejectUnknownFields)
	}
	f.c.post(func() {
		if f.c.files[f.key] != f {
			return
		}
		for _, w := range warnings {
			f.c.warnUnknown("", w.Error())
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

// decodeFile parses a DiscoveryResponse, in the format that the file's name tells, as the bootstrap
// would be. What is wrong with a resource is in its item.
//
// DIVERGES(xds-file-partial): a bad resource doesn't take the others along; in Envoy a type that it
// doesn't know makes the whole file useless.
func (k *kind) decodeFile(path string, data []byte, strict bool) (*response, []error, error) {
	if len(data) == 0 {
		// Somebody is about to write it. Read as a message it would remove everything.
		return nil, nil, errEmptyFile
	}
	unknown := config.WarnUnknown
	if strict {
		unknown = config.RejectUnknown
	}
	var m discoveryv3.DiscoveryResponse
	elements, warnings, err := config.ParseList(path, config.FormatOf(path), data, &m, "resources", unknown)
	if err == nil && proto.Size(&m) == 0 && config.IsNull(config.FormatOf(path), data) {
		err = errEmptyFile
	}
	if err == nil {
		err = k.checkFileType(m.GetTypeUrl())
	}
	if err != nil {
		return nil, warnings, err
	}
	resp := &response{version: m.GetVersionInfo(), sotw: true}
	for i, a := range m.GetResources() {
		it := k.openAny(a, m.GetVersionInfo())
		if i < len(elements) && elements[i] != nil {
			it.err = elements[i]
		}
		resp.items = append(resp.items, it)
	}
	return resp, warnings, nil
}

func (k *kind) checkFileType(url string) error {
	if url != "" && url != k.url {
		return fmt.Errorf("type_url: %s, want %s", url, k.url)
	}
	return nil
}
