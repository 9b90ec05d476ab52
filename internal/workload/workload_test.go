package workload

import (
	"encoding/base64"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/structpb"

	"sidecar/api/stream"
)

func node(t *testing.T, m map[string]any) *structpb.Struct {
	t.Helper()
	s, err := structpb.NewStruct(m)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFromNode(t *testing.T) {
	t.Parallel()
	const canonical, revision = "service.istio.io/canonical-name", "service.istio.io/canonical-revision"
	for _, tc := range []struct {
		name string
		node map[string]any
		want Workload
	}{
		{name: "nothing"},
		{
			name: "all",
			node: map[string]any{
				"NAME": "p", "NAMESPACE": "n", "CLUSTER_ID": "c", "WORKLOAD_NAME": "w", "IDENTITY": "spiffe://i",
				"OWNER":  "kubernetes://apis/apps/v1/namespaces/n/deployments/w",
				"LABELS": map[string]any{canonical: "cn", revision: "cr", "app": "a", "version": "v", "x": "y"},
			},
			want: Workload{
				Instance: "p", Namespace: "n", Cluster: "c", Name: "w", Identity: "spiffe://i", Type: "deployment",
				CanonicalName: "cn", CanonicalRevision: "cr", App: "a", Version: "v", Labels: map[string]string{"x": "y"},
			},
		},
		{
			name: "names of Kubernetes's labels",
			node: map[string]any{"LABELS": map[string]any{"app.kubernetes.io/name": "a", "app.kubernetes.io/version": "v"}},
			want: Workload{CanonicalName: "a", CanonicalRevision: "v", App: "a", Version: "v"},
		},
		{
			name: "a job", node: map[string]any{"OWNER": "kubernetes://apis/batch/v1/namespaces/n/jobs/w"},
			want: Workload{Type: "job"},
		},
		{name: "another owner", node: map[string]any{"OWNER": "vm://x"}},
		{name: "another kind of value", node: map[string]any{"NAME": 7.0, "LABELS": "x"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(&tc.want, FromNode(node(t, tc.node), []string{"x"})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestHeader: what one has written the other reads.
func TestHeader(t *testing.T) {
	t.Parallel()
	w := &Workload{
		Instance: "p", Namespace: "n", Cluster: "c", Name: "w", Identity: "i", Type: "deployment",
		CanonicalName: "cn", CanonicalRevision: "cr", App: "a", Version: "v", Labels: map[string]string{"x": "y"},
	}
	if diff := cmp.Diff(w, FromHeader(w.Header(), []string{"x"})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for _, text := range []string{"!", base64.StdEncoding.EncodeToString([]byte{0xff}), string(make([]byte, maxHeader+1))} {
		if got := FromHeader(text, nil); got != nil {
			t.Errorf("%.10q is %+v", text, got)
		}
	}
}

func TestFromEndpoint(t *testing.T) {
	t.Parallel()
	want := &Workload{Name: "w", Namespace: "n", CanonicalName: "cn", CanonicalRevision: "cr", Cluster: "c"}
	if diff := cmp.Diff(want, FromEndpoint("w;n;cn;cr;c")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := FromEndpoint("w;n"); got != nil {
		t.Errorf("%+v", got)
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	w := &Workload{Name: "w", Namespace: "n", Type: "pod", Labels: map[string]string{"x": "y"}}
	if got := w.String(); got != "type=pod,workload=w,namespace=n" {
		t.Error(got)
	}
	for name, want := range map[string]string{"workload": "w", "namespace": "n", "labels.x": "y", "app": "", "z": ""} {
		if got, ok := w.FilterStateField(name); got != want || ok != (want != "") {
			t.Errorf("%s: %q, %v", name, got, ok)
		}
	}
}

func TestSlot(t *testing.T) {
	t.Parallel()
	w := &Workload{Name: "w"}
	s := &Slot{}
	state := map[string]stream.FilterObject{Upstream: {Value: s}}
	if Known(state, Upstream) || Of(state, Upstream) != nil || !Known(state, Downstream) || s.String() != "" {
		t.Error("it is known before it is settled")
	}
	s.Settle(w)
	s.Settle(nil)
	if !Known(state, Upstream) || Of(state, Upstream) != w || s.String() != "workload=w" {
		t.Error("it is not known, or not the first one")
	}
}

func FuzzFromHeader(f *testing.F) {
	f.Add((&Workload{Name: "w", Type: "pod"}).Header())
	f.Add("AA==")
	f.Fuzz(func(_ *testing.T, text string) {
		if w := FromHeader(text, []string{"x"}); w != nil {
			_ = w.String() + w.Header()
		}
	})
}
