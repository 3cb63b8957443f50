package cluster

import (
	"time"

	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

const (
	// messageBytesMax bounds one batch of actor messages. These fit: writerBatchMax messages of up to 16 KiB each, a notice,
	// and queriesMax queries and answers of up to bodyBytesMax each. A longer one would break the connection.
	messageBytesMax = 32 << 20
	writerBatchMax  = 256
	// writerQueueInitial is the first size of the queue to one member. Proto.Actor's default of a million slots takes
	// 16 MB for every member.
	writerQueueInitial = 1024
	// connectTries is how often a connection is tried before the messages queued for it are dropped; Proto.Actor sleeps
	// two seconds after each try. 0 would never connect.
	connectTries   = 1
	connectTimeout = 2 * time.Second
	// A silent connection is probed after keepaliveIdle (gRPC's least) and given up after keepaliveTimeout.
	keepaliveIdle    = 10 * time.Second
	keepaliveTimeout = 3 * time.Second
)

// remoteConfig returns the settings of Proto.Actor's remoting.
func remoteConfig(cfg Config, metrics *Metrics) (*remote.Config, error) {
	host, port, err := splitAddr(cfg.RemoteAddr)
	if err != nil {
		return nil, err
	}
	server, client := insecure.NewCredentials(), insecure.NewCredentials()
	if cfg.RemoteTLS != nil {
		server, client = credentials.NewTLS(cfg.RemoteTLS), credentials.NewTLS(cfg.RemoteTLS)
	}
	rc := remote.Configure(host, port,
		remote.WithAdvertisedHost(cfg.AdvertiseAddrs.Remote),
		remote.WithEndpointWriterQueueSize(writerQueueInitial),
		remote.WithEndpointWriterBatchSize(writerBatchMax),
		remote.WithServerOptions(
			grpc.Creds(server),
			grpc.UnaryInterceptor(refuseCall),
			grpc.StreamInterceptor(tolerant(cfg.Messages, cfg.Logger, metrics)),
			grpc.MaxRecvMsgSize(messageBytesMax),
			grpc.MaxSendMsgSize(messageBytesMax),
			grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveIdle, Timeout: keepaliveTimeout}),
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveIdle / 2, PermitWithoutStream: true})),
		remote.WithDialOptions(
			grpc.WithTransportCredentials(client),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageBytesMax), grpc.MaxCallSendMsgSize(messageBytesMax)),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectTimeout}),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{
				Time: keepaliveIdle, Timeout: keepaliveTimeout, PermitWithoutStream: true,
			})))
	rc.MaxRetryCount = connectTries
	return rc, nil
}
