package transport

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"sidecar/internal/config/source"
)

// maxMessageBytes bounds a response when the config gives no limit.
//
// DIVERGES(xds-message-size): Envoy has no limit at all.
const maxMessageBytes = 256 << 20

// Dialer opens connections to the hosts of a cluster.
type Dialer interface {
	// DialCluster returns a connection to a host of the cluster, with the cluster's transport
	// socket (TLS) already on it: HTTP/2 with prior knowledge is spoken on it. The caller closes it.
	DialCluster(ctx context.Context, cluster string) (net.Conn, error)
}

// connect makes a channel to the server; it dials at the first stream.
func connect(cfg *source.GRPC, d Dialer) (*grpc.ClientConn, error) {
	limit := maxMessageBytes
	if n := int(cfg.MaxReceiveMessageBytes); n > 0 {
		limit = n
	}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(limit)),
	}
	target := cfg.TargetURI
	if target == "" {
		if d == nil {
			return nil, errors.New("no dialer for clusters")
		}
		// The dialer picks the host; gRPC must not resolve anything.
		target = "passthrough:///cluster"
		opts = append(opts, grpc.WithAuthority(cfg.Authority),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				conn, err := d.DialCluster(ctx, cfg.Cluster)
				if err != nil {
					return nil, fmt.Errorf("cluster %q: %w", cfg.Cluster, err)
				}
				return conn, nil
			}))
	}
	return grpc.NewClient(target, opts...)
}
