package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

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

// Keepalive may be implemented by a Dialer: the HTTP/2 connection_keepalive of a cluster. A zero
// interval sends no PINGs.
type Keepalive interface {
	KeepaliveOf(cluster string) (interval, timeout time.Duration)
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
		opts = append(opts, keepaliveOptions(d, cfg.Cluster)...)
	}
	return grpc.NewClient(target, opts...)
}

func keepaliveOptions(d Dialer, cluster string) []grpc.DialOption {
	k, ok := d.(Keepalive)
	if !ok {
		return nil
	}
	interval, timeout := k.KeepaliveOf(cluster)
	if interval <= 0 {
		return nil
	}
	return []grpc.DialOption{grpc.WithKeepaliveParams(keepalive.ClientParameters{
		Time: interval, Timeout: timeout,
	})}
}
