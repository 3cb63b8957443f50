package cluster

import (
	"context"
	"log/slog"
	"runtime/debug"
	"slices"

	"github.com/asynkron/protoactor-go/actor"
	protocluster "github.com/asynkron/protoactor-go/cluster"
	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/evently/evently/cluster/noticepb"
)

// tolerant keeps what another process sends from harming more than itself. Proto.Actor ends the connection, with all that is
// under way on it, at the first message of a type that this process does not have, and panics at a batch whose numbers do not
// fit, which ends the process. It also does what it is told by messages that are for within a process, such as to stop an
// actor. So all but the messages that members send each other are taken out before it sees them.
func tolerant(messages []string, logger *slog.Logger, metrics *Metrics) grpc.StreamServerInterceptor {
	allowed := make(map[string]bool)
	for _, name := range messages {
		allowed[name] = true
	}
	for _, message := range []proto.Message{
		&protocluster.ActivationRequest{}, &protocluster.ActivationResponse{}, &actor.DeadLetterResponse{}, &noticepb.Envelope{},
	} {
		allowed[string(message.ProtoReflect().Descriptor().FullName())] = true
	}
	return func(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
		defer func() {
			if reason := recover(); reason != nil {
				logger.Error("connection failed", "reason", reason, "stack", string(debug.Stack()))
				err = status.Error(codes.Internal, "the connection failed")
			}
		}()
		return next(server, &tolerantStream{ServerStream: stream, allowed: allowed, log: logger, metrics: metrics})
	}
}

// refuseCall answers the calls of the protocol other than the stream: Proto.Actor panics at them.
func refuseCall(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
	return nil, status.Error(codes.Unimplemented, "not supported")
}

type tolerantStream struct {
	grpc.ServerStream
	allowed map[string]bool // names of messages
	log     *slog.Logger
	metrics *Metrics
	told    bool // one record for each connection
}

// RecvMsg implements grpc.ServerStream. One goroutine reads a stream.
func (s *tolerantStream) RecvMsg(message any) error {
	if err := s.ServerStream.RecvMsg(message); err != nil {
		return err
	}
	if message, ok := message.(*remote.RemoteMessage); ok && message.GetMessageBatch() != nil {
		s.filter(message.GetMessageBatch())
	}
	return nil
}

func (s *tolerantStream) filter(batch *remote.MessageBatch) {
	known := make([]bool, len(batch.TypeNames))
	for i, name := range batch.TypeNames {
		_, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
		known[i] = err == nil && s.allowed[name]
	}
	within := func(index int32, n int) bool { return index >= 0 && int(index) < n }
	before := len(batch.Envelopes)
	batch.Envelopes = slices.DeleteFunc(batch.Envelopes, func(e *remote.MessageEnvelope) bool {
		return !within(e.TypeId, len(known)) || !known[e.TypeId] || e.SerializerId != remote.DefaultSerializerID ||
			!within(e.Target, len(batch.Targets)) || !within(e.Sender, len(batch.Senders)+1) // 0 is none
	})
	if ignored := before - len(batch.Envelopes); ignored > 0 {
		s.metrics.strange.Add(float64(ignored))
		if !s.told {
			s.told = true
			s.log.Warn("messages of other types than members send are ignored", "messages", ignored, "types", batch.TypeNames)
		}
	}
}
