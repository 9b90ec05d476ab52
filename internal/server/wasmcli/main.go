package wasmcli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"sidecar/wasmhost"
)

const help = `usage: sidecar wasm <command> plugin.wasm [flags]

  run      run a plugin on made-up requests and print all that it does
  inspect  say what is in a module and whether it would be taken

For the flags: sidecar wasm <command> --help
`

// Main runs the command in args, which begin after "wasm". It returns the exit code: 0; 1 if the plugin
// is refused, fails, or leaves a request without an end; 2 for a mistake in the arguments.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, help)
		return 2
	}
	var err error
	switch args[0] {
	case "run":
		err = runCommand(ctx, args[1:], stdout, stderr)
	case "inspect":
		err = inspectCommand(args[1:], stdout, stderr)
	case "compile": // Not for people: see wasmhost.Options.Compiler.
		return wasmhost.CompileChild(args[1:], os.Stdin, os.NewFile(3, "output"), stderr)
	case "help", "-h", "--help":
		fmt.Fprint(stdout, help)
		return 0
	default:
		fmt.Fprintf(stderr, "sidecar wasm: no command %q\n\n%s", args[0], help)
		return 2
	}
	var usage *usageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "sidecar wasm %s: %v\n", args[0], usage.err)
		return 2
	}
	fmt.Fprintf(stderr, "sidecar wasm %s: %v\n", args[0], err)
	return 1
}

// usageError is a mistake in the arguments.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }

// parse reads flags before and after the one argument, the module's file.
func parse(fs *flag.FlagSet, args []string, stdout io.Writer, what string) (file string, err error) {
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	for {
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				fmt.Fprintf(stdout, "usage: sidecar wasm %s plugin.wasm [flags]\n\n%s\n\n", fs.Name(), what)
				fs.SetOutput(stdout)
				fs.PrintDefaults()
				return "", flag.ErrHelp
			}
			return "", &usageError{err}
		}
		if fs.NArg() == 0 {
			break
		}
		if file != "" {
			return "", &usageError{fmt.Errorf("one plugin at a time, not %q and %q", file, fs.Arg(0))}
		}
		file, args = fs.Arg(0), fs.Args()[1:]
	}
	if file == "" {
		return "", &usageError{errors.New("the plugin's file is missing")}
	}
	return file, nil
}
