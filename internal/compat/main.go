// Command compat plays the same exchanges to Envoy and to the sidecar, on the same config, and
// shows what differs: what clients get, what upstreams get, access-log lines, and what moved in the
// statistics.
//
//	compat                     both live; without an Envoy, against what was recorded from it
//	compat -golden             against the records, faster
//	compat -record             record Envoy's behaviour into testdata/compat/golden
//	compat -self               Envoy against its own records: what differs there is chance
//	compat -mutate N           random damage to the cases' requests, both proxies live
//	compat -topics             only check docs/compat.md against the DIVERGES comments
//
// It exits with 1 when something differs that testdata/compat/allowed.yaml doesn't explain.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"

	"sidecar/internal/compat/corpus"
	"sidecar/internal/peer/locate"
)

type options struct {
	run      *regexp.Regexp
	record   bool
	golden   bool
	self     bool
	topics   bool
	list     bool
	print    bool
	order    bool
	ignore   map[string]bool
	jobs     int
	retries  int
	top      int
	mutate   int
	seed     uint64
	jsonPath string
	dir      string // testdata/compat
	root     string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	code, err := command(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "compat:", err)
		code = 2
	}
	stop()
	os.Exit(code)
}

func parseFlags(args []string) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("compat", flag.ContinueOnError)
	pattern := fs.String("run", "", "regular expression over group/case")
	fs.BoolVar(&o.record, "record", false, "record what Envoy does")
	fs.BoolVar(&o.golden, "golden", false, "compare with the records, not with a running Envoy")
	fs.BoolVar(&o.self, "self", false, "compare Envoy with the records")
	fs.BoolVar(&o.topics, "topics", false, "only check docs/compat.md against the code")
	fs.BoolVar(&o.list, "list", false, "list the cases")
	fs.BoolVar(&o.print, "v", false, "print what Envoy does in each case too")
	fs.BoolVar(&o.order, "order", false, "count another order of different headers as a difference")
	ignore := fs.String("ignore", "", "comma-separated: client, upstream, log, stats")
	fs.IntVar(&o.jobs, "j", 2, "groups played at once")
	fs.IntVar(&o.retries, "retries", 2, "times a case that differs is played again")
	fs.IntVar(&o.top, "top", 0, "print the differing lines that come most often")
	fs.IntVar(&o.mutate, "mutate", 0, "damage the requests of cases at random so many times instead")
	fs.Uint64Var(&o.seed, "seed", 1, "seed of -mutate")
	fs.StringVar(&o.jsonPath, "json", "", "write the differences to this file as JSON")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	var err error
	if o.run, err = regexp.Compile(*pattern); err != nil {
		return nil, fmt.Errorf("-run: %w", err)
	}
	o.ignore = map[string]bool{}
	for kind := range strings.SplitSeq(*ignore, ",") {
		o.ignore[kind] = kind != ""
	}
	if o.root, err = locate.Root(); err != nil {
		return nil, err
	}
	o.dir = filepath.Join(o.root, "testdata", "compat")
	return o, nil
}

func command(ctx context.Context, args []string) (int, error) {
	o, err := parseFlags(args)
	if errors.Is(err, flag.ErrHelp) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	allowed, err := readAllowed(o.dir)
	if err != nil {
		return 0, err
	}
	if o.topics {
		return 0, checkTopics(o.root, allowed)
	}
	groups, err := corpus.Load(filepath.Join(o.dir, "cases"))
	if err != nil {
		return 0, err
	}
	if o.list {
		list(groups, o)
		return 0, nil
	}
	want, got, err := o.sides()
	if err != nil {
		// Nothing to compare: not a failure of the proxy.
		fmt.Println("compat: skipped:", err)
		return 0, nil
	}
	s := &session{options: o, want: want, got: got, allowed: allowed}
	if o.mutate > 0 {
		return s.mutateAll(ctx, groups)
	}
	return s.playAll(ctx, groups)
}

func list(groups []*corpus.Group, o *options) {
	n := 0
	for _, g := range groups {
		for i := range g.Cases {
			if name := g.Describe(&g.Cases[i]); o.run.MatchString(name) {
				fmt.Printf("%s\t%s\n", name, g.Cases[i].Doc)
				n++
			}
		}
	}
	fmt.Println(n, "cases")
}

// sides chooses what is compared with what. A nil proxy stands for the records.
func (o *options) sides() (want, got *proxy, err error) {
	envoy, envoyErr := locate.Envoy(o.root)
	if o.record || o.self {
		if envoyErr != nil {
			return nil, nil, envoyErr
		}
		return nil, &proxy{"envoy", envoy}, nil
	}
	binary, err := locate.Sidecar(o.root)
	if err != nil {
		return nil, nil, err
	}
	got = &proxy{"sidecar", binary}
	if o.golden {
		return nil, got, nil
	}
	if envoyErr != nil {
		fmt.Println("compat: no Envoy, using the records:", envoyErr)
		return nil, got, nil
	}
	return &proxy{"envoy", envoy}, got, nil
}
