package load

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"sidecar/internal/bench/upstream"
)

// BulkGRPC sends total bytes on each of n streams of one connection to a server that sends them
// back, in messages of 64 KiB, and reads them.
func BulkGRPC(ctx context.Context, address string, n int, total int64) error {
	cc, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("bench.test"),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(upstream.Bytes{})),
		grpc.WithInitialWindowSize(1<<20), grpc.WithInitialConnWindowSize(4<<20))
	if err != nil {
		return err
	}
	defer cc.Close()
	return each(n, func() error { return bulkStream(ctx, cc, total) })
}

func bulkStream(ctx context.Context, cc *grpc.ClientConn, total int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/bench.Bulk/Echo")
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		message := make([]byte, 64<<10)
		for left := total; left > 0; left -= int64(len(message)) {
			if err := s.SendMsg(&message); err != nil {
				sent <- err
				return
			}
		}
		sent <- s.CloseSend()
	}()
	var got int64
	var message []byte
	for {
		err := s.RecvMsg(&message)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			cancel()
			return errors.Join(err, <-sent)
		}
		got += int64(len(message))
	}
	if err := <-sent; err != nil {
		return err
	}
	if got < total {
		return fmt.Errorf("%d bytes of %d came back", got, total)
	}
	return nil
}
