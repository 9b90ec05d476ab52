package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"sidecar/internal/config/configtest"
)

const module = "sidecar/"

// layers is who may import whom. A package belongs to the first layer whose prefix it has, and may
// import its own layer. Commands are wired from everything.
var layers = []struct {
	prefix string
	may    []string
}{
	{"cmd", []string{"internal/server", "internal", "api"}},
	{"deploy", nil},
	{"internal/server", []string{"xds", "listener", "cluster", "wasmhost", "internal", "api"}},
	{"internal", []string{"api"}},
	{"api", []string{"internal"}},
	{"xds", []string{"api", "internal"}},
	{"listener", []string{"cluster", "api", "internal"}},
	{"cluster", []string{"api", "internal"}},
	{"wasmhost", []string{"api", "internal"}},
}

// only lists imports that few packages may have, each with those that may. A name that ends in / is
// meant with all below it.
var only = map[string][]string{
	"unsafe":   {"wasmhost/internal/engine", "api/header", "internal/buf"},
	"C":        {"wasmhost/internal/engine"},
	"net/http": {"internal/admin/", "wasmhost/code/fetch/"},
	"github.com/bytecodealliance/wasmtime-go/": {"wasmhost/internal/engine"},
	// The others are its peers in benchmarks and recordings.
	"golang.org/x/net/http2":   {"internal/codec/h2", "internal/bench/", "internal/compat/play"},
	"sidecar/wasmhost/plugin/": {"internal/server", "internal/server/wasmcli", "wasmhost/plugin/"},
}

// bannedNames say nothing of what is inside.
var bannedNames = []string{
	"util", "utils", "common", "types", "helper", "helpers", "base", "misc", "manager", "impl", "v2",
}

const maxLines = 800

// reasonMark begins, in its package comment, the reason why a package with one importer is one.
const reasonMark = "Single importer:"

type listed struct {
	ImportPath, Dir, Name, Doc             string
	Imports, Deps                          []string
	GoFiles, CgoFiles, TestGoFiles, HFiles []string
	XTestGoFiles                           []string
	Module                                 *struct{ Main bool }
}

// path is the import path inside the module.
func (p *listed) path() string { return strings.TrimPrefix(p.ImportPath, module) }

func (p *listed) files() []string {
	return slices.Concat(p.GoFiles, p.CgoFiles, p.TestGoFiles, p.XTestGoFiles)
}

// isTool tells whether a package is a command, help for tests, or part of the bench and the oracle,
// which no binary of ours links.
func (p *listed) isTool() bool {
	for _, tree := range []string{"internal/bench", "internal/compat", "internal/peer"} {
		if within(p.path(), tree) {
			return true
		}
	}
	return p.Name == "main" || strings.HasSuffix(p.Name, "test")
}

// isGenerated tells whether protoc wrote all of it.
func (p *listed) isGenerated() bool {
	return len(p.GoFiles) > 0 && !slices.ContainsFunc(p.GoFiles, func(f string) bool { return !strings.HasSuffix(f, ".pb.go") })
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// packages are those of the module.
func packages(t *testing.T) []*listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json", "./...")
	cmd.Dir = moduleRoot(t)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var pkgs []*listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return pkgs
		}
		if err != nil {
			t.Fatal(err)
		}
		if p.Module != nil && p.Module.Main {
			pkgs = append(pkgs, &p)
		}
	}
}

func within(path, prefix string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }

func layerOf(path string) int {
	best, size := -1, -1
	for i, l := range layers {
		if within(path, l.prefix) && len(l.prefix) > size {
			best, size = i, len(l.prefix)
		}
	}
	return best
}

func TestArchitecture(t *testing.T) {
	t.Parallel()
	pkgs := packages(t)
	importers := map[string]int{}
	for _, p := range pkgs {
		for _, imported := range p.Imports {
			importers[imported]++
		}
	}
	for _, p := range pkgs {
		checkLayer(t, p)
		checkOnly(t, p)
		checkPackage(t, p, importers[p.ImportPath])
		checkFiles(t, p)
	}
}

func checkLayer(t *testing.T, p *listed) {
	t.Helper()
	from := layerOf(p.path())
	if from < 0 {
		t.Errorf("%s is in none of the layers", p.path())
		return
	}
	for _, imported := range p.Imports {
		path, own := strings.CutPrefix(imported, module)
		if !own {
			continue
		}
		to := layerOf(path)
		if to < 0 || to == from || p.isTool() || slices.Contains(layers[from].may, layers[to].prefix) {
			continue
		}
		t.Errorf("%s imports %s: %s may import %v", p.path(), path, layers[from].prefix, layers[from].may)
	}
}

func checkOnly(t *testing.T, p *listed) {
	t.Helper()
	for _, imported := range p.Imports {
		for what, who := range only {
			if imported != what && !(strings.HasSuffix(what, "/") && strings.HasPrefix(imported, what)) {
				continue
			}
			if (what == "net/http" && p.isTool()) || (what == "unsafe" && p.isGenerated()) {
				continue
			}
			allowed := slices.ContainsFunc(who, func(w string) bool {
				return p.path() == strings.TrimSuffix(w, "/") || (strings.HasSuffix(w, "/") && strings.HasPrefix(p.path(), w))
			})
			if !allowed {
				t.Errorf("%s imports %s, which only %v may", p.path(), imported, who)
			}
		}
	}
}

func checkPackage(t *testing.T, p *listed, importers int) {
	t.Helper()
	if slices.Contains(bannedNames, p.Name) {
		t.Errorf("%s: the name %s says nothing", p.path(), p.Name)
	}
	if len(p.GoFiles)+len(p.CgoFiles) > 0 && p.Doc == "" && !p.isGenerated() {
		t.Errorf("%s has no package comment", p.path())
	}
	shared := (within(p.path(), "internal") || within(p.path(), "api")) && p.path() != "internal/server"
	if shared && !p.isTool() && !p.isGenerated() && importers < 2 && !strings.Contains(packageComment(t, p), reasonMark) {
		t.Errorf("%s has %d importers: move it to where it is used, or say why not in its package comment, after %q",
			p.path(), importers, reasonMark)
	}
	if p.path() == "cmd/sidecar" {
		for _, dep := range p.Deps {
			if dep == "testing" || (strings.HasPrefix(dep, module) && strings.HasSuffix(dep, "test")) {
				t.Errorf("the binary links %s", dep)
			}
		}
	}
}

// packageComment is the whole comment; go list gives its first sentence.
func packageComment(t *testing.T, p *listed) string {
	t.Helper()
	var text strings.Builder
	for _, file := range slices.Concat(p.GoFiles, p.CgoFiles) {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString(f.Doc.Text())
	}
	return text.String()
}

func checkFiles(t *testing.T, p *listed) {
	t.Helper()
	for _, file := range p.files() {
		if strings.HasSuffix(file, ".pb.go") || strings.HasSuffix(file, ".pb.validate.go") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(p.Dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if lines := bytes.Count(data, []byte{'\n'}); lines > maxLines {
			t.Errorf("%s/%s has %d lines", p.path(), file, lines)
		}
	}
}

// TestLifeOfARequest holds that every function that listener/README.md names is there. The page
// names them as `hcm/conn.go:onRequest`, from listener, or as `cluster/pool/h1.go:Acquire`, from
// the top.
func TestLifeOfARequest(t *testing.T) {
	t.Parallel()
	root := moduleRoot(t)
	page, err := os.ReadFile(filepath.Join(root, "listener", "README.md"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("listener/README.md is not there")
	}
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`([a-z0-9_/]+\\.go):([A-Za-z0-9_.]+)`").FindAllSubmatch(page, -1)
	if len(named) == 0 {
		t.Error("listener/README.md names no function")
	}
	for _, m := range named {
		file, function := string(m[1]), string(m[2])
		source, err := os.ReadFile(filepath.Join(root, "listener", file))
		if err != nil {
			source, err = os.ReadFile(filepath.Join(root, file))
		}
		if err != nil {
			t.Errorf("%s is not there", file)
			continue
		}
		name := function[strings.LastIndexByte(function, '.')+1:]
		if !regexp.MustCompile(`(?m)^func (\([^)]*\) )?` + name + `[\[(]`).Match(source) {
			t.Errorf("%s has no func %s", file, function)
		}
	}
}

// TestEveryFieldIsAccountedFor completes what configtest.Covers checks for each package: a message
// type that one package leaves to another must have a table there.
func TestEveryFieldIsAccountedFor(t *testing.T) {
	t.Parallel()
	tables, left := map[string]bool{}, map[string]string{}
	root := moduleRoot(t)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "configtest") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, ".pb.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		accounts(f, rel, tables, left)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, where := range left {
		// What isn't linked needs no table.
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		md, ok := d.(protoreflect.MessageDescriptor)
		if err == nil && ok && configtest.NeedsTable(md) && !tables[name] {
			t.Errorf("%s leaves %s to another package, and none has a table of its fields", where, name)
		}
	}
	if len(tables) == 0 {
		t.Error("found no table of fields")
	}
}

// accounts notes the tables and the Elsewhere lists of a file.
func accounts(f *ast.File, where string, tables map[string]bool, left map[string]string) {
	protos := map[string]string{} // Go package name to protobuf package
	for _, imp := range f.Imports {
		path, err := strconv.Unquote(imp.Path.Value)
		if err == nil && imp.Name != nil {
			protos[imp.Name.Name] = protoPackage(path)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.IndexExpr:
			// config.Fields[*corev3.Node]
			if selected(x.X) != "Fields" {
				return true
			}
			star, ok := x.Index.(*ast.StarExpr)
			if !ok {
				return true
			}
			if sel, ok := star.X.(*ast.SelectorExpr); ok {
				if pkg, ok := sel.X.(*ast.Ident); ok {
					tables[protos[pkg.Name]+"."+strings.ReplaceAll(sel.Sel.Name, "_", ".")] = true
				}
			}
		case *ast.CompositeLit:
			if selected(x.Type) != "Elsewhere" {
				return true
			}
			for _, el := range x.Elts {
				if lit, ok := el.(*ast.BasicLit); ok {
					if name, err := strconv.Unquote(lit.Value); err == nil {
						left[name] = where
					}
				}
			}
		}
		return true
	})
}

func selected(e ast.Expr) string {
	if sel, ok := e.(*ast.SelectorExpr); ok {
		return sel.Sel.Name
	}
	return ""
}

// protoPackage turns .../go-control-plane/envoy/config/core/v3 into envoy.config.core.v3, and
// sidecar/api/sidecar/x/v1 into sidecar.x.v1.
func protoPackage(path string) string {
	for _, root := range []string{"go-control-plane/", "cncf/xds/go/", "sidecar/api/"} {
		if _, after, ok := strings.Cut(path, root); ok {
			return strings.ReplaceAll(after, "/", ".")
		}
	}
	return fmt.Sprintf("(%s)", path)
}
