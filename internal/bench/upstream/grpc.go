package upstream

import (
	"errors"
	"fmt"
	"io"
	"net"

	"google.golang.org/grpc"
)

// Bytes is a codec for gRPC that leaves messages as they are: *[]byte.
type Bytes struct{}

// Marshal returns the bytes that v points to.
func (Bytes) Marshal(v any) ([]byte, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("a message of type %T", v)
	}
	return *b, nil
}

// Unmarshal copies data to where v points.
func (Bytes) Unmarshal(data []byte, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("a message of type %T", v)
	}
	*b = append((*b)[:0], data...)
	return nil
}

// Name is the name of the codec.
func (Bytes) Name() string { return "bytes" }

// ServeGRPC sends each message of each stream back, whatever the method, until l is closed.
func ServeGRPC(l net.Listener) error {
	s := grpc.NewServer(grpc.ForceServerCodec(Bytes{}), grpc.MaxConcurrentStreams(1000),
		grpc.InitialWindowSize(1<<20), grpc.InitialConnWindowSize(4<<20),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			var message []byte
			for {
				err := stream.RecvMsg(&message)
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				if err := stream.SendMsg(&message); err != nil {
					return err
				}
			}
		}))
	return s.Serve(l)
}
