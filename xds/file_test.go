package xds_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"sidecar/internal/config/source"
)

// replace writes a file the way it should be done: beside, then moved over.
func replace(t *testing.T, path, content string) {
	t.Helper()
	tmp := filepath.Join(t.TempDir(), "new")
	write(t, tmp, content)
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func listenersYAML(version string, nameAndText ...string) string {
	var b strings.Builder
	b.WriteString("version_info: '" + version + "'\nresources:\n")
	for _, s := range nameAndText {
		name, text, _ := strings.Cut(s, "=")
		b.WriteString("- '@type': type.googleapis.com/envoy.config.listener.v3.Listener\n" +
			"  name: " + name + "\n  stat_prefix: '" + text + "'\n")
	}
	return b.String()
}

type fileRig struct {
	*rig
	path string
	w    *watcher
	st   *source.Stats
}

func newFileRig(t *testing.T, name, content string) *fileRig {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	write(t, path, content)
	r := &fileRig{rig: newRig(t, false), path: path, w: newWatcher(), st: &source.Stats{}}
	r.subscribeFile(source.ListenerType, path, "", r.w, r.st)
	return r
}

func (r *rig) subscribeFile(url, path, watched string, w *watcher, st *source.Stats, names ...string) {
	r.t.Helper()
	file := &corev3.PathConfigSource{Path: path}
	if watched != "" {
		file.WatchedDirectory = &corev3.WatchedDirectory{Path: watched}
	}
	src, err := source.Compile(&corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_PathConfigSource{PathConfigSource: file},
	}, "c")
	if err != nil {
		r.t.Fatal(err)
	}
	r.client.Subscribe(source.Spec{TypeURL: url, Names: names, Source: src, Watcher: w, Stats: st})
}

func TestFileReplaced(t *testing.T) {
	t.Parallel()
	r := newFileRig(t, "lds.yaml", listenersYAML("v1", "a=1", "b=1"))
	r.w.want(r.ctx, t, "a=1", "b=1")
	replace(t, r.path, listenersYAML("v2", "a=2", "c=1"))
	r.w.want(r.ctx, t, "a=2", "c=1", "-b")
	if got := r.st.VersionText.Value(); got != "v2" {
		t.Fatalf("version_text %q", got)
	}

	// A file that can't be parsed leaves everything as it is.
	for i, content := range []string{"resources: [", "", "# nothing", "null"} {
		replace(t, r.path, content)
		waitFor(t, r.ctx, func() bool { return r.st.UpdateFailure.Value() == uint64(i)+1 })
	}
	r.w.quiet(t)
	if n := r.st.UpdateAttempt.Value(); n != 6 {
		t.Fatalf("update_attempt %d after two good files and four bad, want 6", n)
	}

	// Written in place.
	write(t, r.path, listenersYAML("v3", "a=bad", "c=2"))
	r.w.want(r.ctx, t, "a=bad", "c=2")
	waitFor(t, r.ctx, func() bool { return r.st.UpdateRejected.Value() == 1 })
	replace(t, r.path, listenersYAML("v4", "a=2", "c=2"))
	r.w.want(r.ctx, t, "a=2")
}

// TestFileSymlinks swaps a directory as kubelet does for a ConfigMap, with and without
// watched_directory.
func TestFileSymlinks(t *testing.T) {
	t.Parallel()
	for _, watched := range []bool{false, true} {
		dir := t.TempDir()
		put := func(version, content string) {
			if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, version, "lds.yaml"), content)
			tmp := filepath.Join(dir, "..data_tmp")
			if err := os.Symlink(version, tmp); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(tmp, filepath.Join(dir, "..data")); err != nil {
				t.Fatal(err)
			}
		}
		put("..1", listenersYAML("v1", "a=1"))
		path := filepath.Join(dir, "lds.yaml")
		if err := os.Symlink("..data/lds.yaml", path); err != nil {
			t.Fatal(err)
		}
		r, w, watchedDir := newRig(t, false), newWatcher(), ""
		if watched {
			watchedDir = dir
		}
		r.subscribeFile(source.ListenerType, path, watchedDir, w, &source.Stats{})
		w.want(r.ctx, t, "a=1")
		put("..2", listenersYAML("v2", "a=2"))
		w.want(r.ctx, t, "a=2")
	}
}

func TestFileFormats(t *testing.T) {
	t.Parallel()
	a, err := anypb.New(listener("a", "1"))
	if err != nil {
		t.Fatal(err)
	}
	pb, err := proto.Marshal(&discoveryv3.DiscoveryResponse{Resources: []*anypb.Any{a}})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, file, content string }{
		{"yaml", "l.yaml", listenersYAML("", "a=1")},
		{
			"json", "l.json", `{"resources":[{"@type":` +
				`"type.googleapis.com/envoy.config.listener.v3.Listener","name":"a","statPrefix":"1"}]}`,
		},
		{
			"no extension is JSON", "listeners", `{"resources":[{"@type":` +
				`"type.googleapis.com/envoy.config.listener.v3.Listener","name":"a","statPrefix":"1"}]}`,
		},
		{"upper case", "l.YAML", listenersYAML("", "a=1")},
		{
			"what Envoy takes", "l.yml", "resources:\n- '@type': type.googleapis.com/envoy.config.listener.v3.Listener\n" +
				"  name: a\n  stat_prefix: '1'\n  traffic_direction: inbound\n",
		},
		{"protobuf", "l.pb", string(pb)},
		{
			"text", "l.pb_text", `resources { [type.googleapis.com/envoy.config.listener.v3.Listener] ` +
				`{ name: "a" stat_prefix: "1" } }`,
		},
		{
			"wrapped", "l.yaml", "resources:\n- '@type': " +
				"type.googleapis.com/envoy.service.discovery.v3.Resource\n  name: a\n  resource:\n" +
				"    '@type': type.googleapis.com/envoy.config.listener.v3.Listener\n" +
				"    name: a\n    stat_prefix: '1'\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newFileRig(t, tt.file, tt.content)
			r.w.want(r.ctx, t, "a=1")
		})
	}
}

// TestFilePartlyBad: a resource that can't even be parsed doesn't take the others along, and is not
// mistaken for one that was removed.
func TestFilePartlyBad(t *testing.T) {
	t.Parallel()
	r := newFileRig(t, "l.yaml", listenersYAML("v1", "a=1", "b=1"))
	r.w.want(r.ctx, t, "a=1", "b=1")
	replace(t, r.path, listenersYAML("v2", "a=2")+
		"- '@type': type.googleapis.com/envoy.config.listener.v3.Listener\n  name: b\n"+
		"  address: 7\n")
	r.w.want(r.ctx, t, "a=2")
	replace(t, r.path, listenersYAML("v3", "a=3")+"- '@type': type.googleapis.com/no.such.Type\n")
	r.w.want(r.ctx, t, "a=3")
	replace(t, r.path, listenersYAML("v4", "a=4"))
	r.w.want(r.ctx, t, "a=4", "-b")
	if n := r.st.UpdateRejected.Value(); n != 2 {
		t.Fatalf("update_rejected %d, want 2", n)
	}
}

// TestFileEmptyProtobuf: no bytes are a valid message without resources, but hardly meant.
func TestFileEmptyProtobuf(t *testing.T) {
	t.Parallel()
	r := newFileRig(t, "l.pb", "")
	if s := r.w.next(r.ctx, t); s.err == nil {
		t.Fatalf("got %+v, want an error", s)
	}
}

func TestFileUnreadableAtFirst(t *testing.T) {
	t.Parallel()
	r := newFileRig(t, "l.yaml", "no: [")
	if s := r.w.next(r.ctx, t); s.err == nil || !strings.Contains(s.err.Error(), r.path) {
		t.Fatalf("got %+v, want an error with the path", s)
	}
	replace(t, r.path, listenersYAML("v1", "a=1"))
	r.w.want(r.ctx, t, "a=1")
}

func TestFileLateName(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	path := filepath.Join(t.TempDir(), "l.yaml")
	write(t, path, listenersYAML("v1", "a=1", "b=1"))
	a, b := newWatcher(), newWatcher()
	r.subscribeFile(source.ListenerType, path, "", a, nil, "a")
	a.want(r.ctx, t, "a=1")
	r.subscribeFile(source.ListenerType, path, "", b, nil, "b")
	b.want(r.ctx, t, "b=1")
	a.quiet(t)
}
