// Command gen writes the descriptors of every .proto file that ours import, as a FileDescriptorSet on
// standard output: the Go packages carry them, so that protoc needs no checkout of Envoy's API.
package main

import (
	"fmt"
	"os"

	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"
)

func main() {
	set := &descriptorpb.FileDescriptorSet{}
	seen := map[string]bool{}
	for _, f := range []protoreflect.FileDescriptor{
		wasmv3.File_envoy_extensions_wasm_v3_wasm_proto,
		durationpb.File_google_protobuf_duration_proto,
	} {
		add(set, seen, f)
	}
	out, err := proto.Marshal(set)
	if err == nil {
		_, err = os.Stdout.Write(out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// add puts imports before the files that need them.
func add(set *descriptorpb.FileDescriptorSet, seen map[string]bool, f protoreflect.FileDescriptor) {
	if seen[f.Path()] {
		return
	}
	seen[f.Path()] = true
	for i := range f.Imports().Len() {
		add(set, seen, f.Imports().Get(i).FileDescriptor)
	}
	set.File = append(set.File, protodesc.ToFileDescriptorProto(f))
}
