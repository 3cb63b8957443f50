package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	protocluster "github.com/asynkron/protoactor-go/cluster"
	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/evently/evently/cluster"
	"github.com/evently/evently/cluster/noticepb"
)

// sendLaterType sends messages of a type that no other process has, as a node of a later version would.
func sendLaterType(h *host, addr string) error {
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("later.proto"), Package: proto.String("evently.later.v2"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("Later")}},
	}, nil)
	if err != nil {
		return err
	}
	for range 100 {
		for _, name := range []string{cluster.ActivatorName, cluster.BoardName} {
			h.System().Root.Send(actor.NewPID(addr, name), dynamicpb.NewMessage(file.Messages().Get(0)))
		}
	}
	return nil
}

func TestRemote_TypesOfALaterVersionAreIgnoredAndHarmNothing(t *testing.T) {
	t.Parallel()
	members := three(t)
	before := owners(t, 30, members...)
	later, target := members[0], members[1]
	for range 3 {
		later.do(request{Do: "send later type", Arg: target.addr})
		if got := later.do(request{Do: "query", Identity: "echo", Arg: "x", PID: [2]string{target.id}}).Text; got != "echo x" {
			t.Errorf("the sender is answered %q", got)
		}
		if got := members[2].do(request{Do: "query", Identity: "echo", Arg: "x", PID: [2]string{target.id}}).Text; got != "echo x" {
			t.Errorf("another member is answered %q", got)
		}
	}
	eventually(t, func() string {
		if n := target.metric("evently_cluster_messages_ignored_total"); n != 600 {
			return fmt.Sprintf("%d messages ignored, want 600", n)
		}
		return ""
	})
	for identity, id := range owners(t, 30, members...) {
		if id != before[identity] {
			t.Errorf("%s moved from %s to %s", identity, before[identity], id)
		}
	}
	for _, m := range members {
		if n := m.do(request{Do: "spawned"}).N; n != spread(before)[m.id] {
			t.Errorf("%s spawned %d actors, want one for each of its %d identities", m.id, n, spread(before)[m.id])
		}
	}
}

// wire speaks Proto.Actor's protocol to a member.
type wire struct {
	t      *testing.T
	target string // member id
	conn   *grpc.ClientConn
	stream grpc.BidiStreamingClient[remote.RemoteMessage, remote.RemoteMessage]
}

func dial(t *testing.T, h *host) *wire {
	t.Helper()
	conn, err := grpc.NewClient(h.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	w := &wire{t: t, target: h.ID(), conn: conn}
	w.connect()
	return w
}

func (w *wire) connect() {
	w.t.Helper()
	var err error
	if w.stream, err = remote.NewRemotingClient(w.conn).Receive(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.send(&remote.RemoteMessage{MessageType: &remote.RemoteMessage_ConnectRequest{ConnectRequest: &remote.ConnectRequest{
		ConnectionType: &remote.ConnectRequest_ServerConnection{
			ServerConnection: &remote.ServerConnection{MemberId: "wire", Address: "127.0.0.1:1"},
		},
	}}})
	if _, err := w.stream.Recv(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) send(message *remote.RemoteMessage) {
	w.t.Helper()
	if err := w.stream.Send(message); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) batch(types []string, envelopes ...*remote.MessageEnvelope) {
	w.t.Helper()
	w.send(&remote.RemoteMessage{MessageType: &remote.RemoteMessage_MessageBatch{MessageBatch: &remote.MessageBatch{
		TypeNames: types, Targets: []string{cluster.BoardName}, Envelopes: envelopes,
	}}})
}

const envelopeType = "evently.notice.v1.Envelope"

// notice returns a notice on the wire, with more fields than this version has in all of its messages.
func (w *wire) notice(topic, body string) []byte {
	later := func(message []byte) []byte {
		return protowire.AppendString(protowire.AppendTag(message, 1000, protowire.BytesType), "of a later version")
	}
	notice := &noticepb.Notice{Topic: topic, Body: []byte(body)}
	notice.ProtoReflect().SetUnknown(later(nil))
	data, err := proto.Marshal(&noticepb.Envelope{
		From: "wire", To: w.target, Content: &noticepb.Envelope_Notice{Notice: notice},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return later(data)
}

func TestRemote_WhatALaterVersionSendsIsTakenOrIgnored(t *testing.T) {
	h := start(t)
	h.talk()
	w := dial(t, h)
	arrives := func(text string) {
		t.Helper()
		w.batch([]string{envelopeType}, &remote.MessageEnvelope{MessageData: w.notice(topic, text)})
		eventually(t, func() string {
			if !slices.Contains(h.noticed(), "wire: "+text) {
				return fmt.Sprintf("%q has not arrived", text)
			}
			return ""
		})
	}
	arrives("first")

	// On one and the same stream:
	w.batch([]string{"evently.later.v2.Later"}, &remote.MessageEnvelope{MessageData: []byte("garbage")})
	arrives("after an unknown type")
	w.batch([]string{"evently.later.v2.Later", envelopeType},
		&remote.MessageEnvelope{TypeId: 0}, &remote.MessageEnvelope{TypeId: 1, MessageData: w.notice(topic, "beside an unknown type")})
	arrives("after a mixed batch")
	if !slices.Contains(h.noticed(), "wire: beside an unknown type") {
		t.Error("a message beside one of an unknown type was lost")
	}
	content := protowire.AppendBytes(protowire.AppendTag(nil, 99, protowire.BytesType), []byte("later"))
	w.batch([]string{envelopeType},
		&remote.MessageEnvelope{MessageData: w.notice("of a later version", "x")},
		&remote.MessageEnvelope{MessageData: content}, &remote.MessageEnvelope{})
	arrives("after an unknown topic and an unknown content")
	for _, index := range []int32{-1, 1, 7, math.MinInt32, math.MaxInt32} {
		w.batch([]string{envelopeType},
			&remote.MessageEnvelope{TypeId: index}, &remote.MessageEnvelope{Target: index},
			&remote.MessageEnvelope{Sender: index}, &remote.MessageEnvelope{SerializerId: index})
	}
	w.batch(nil, &remote.MessageEnvelope{})
	w.batch(nil)
	w.send(&remote.RemoteMessage{})
	arrives("after numbers that do not fit")

	client := remote.NewRemotingClient(w.conn)
	if _, err := client.ListProcesses(t.Context(), &remote.ListProcessesRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("ListProcesses: %v, want Unimplemented", err)
	}
	if _, err := client.GetProcessDiagnostics(t.Context(), &remote.GetProcessDiagnosticsRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("GetProcessDiagnostics: %v, want Unimplemented", err)
	}
	arrives("after calls that nobody makes")
}

// What Proto.Actor obeys within a process, it does not obey from outside.
func TestRemote_OrdersOfOthersAreIgnored(t *testing.T) {
	h := start(t)
	h.talk()
	w := dial(t, h)
	before := h.Membership()
	for _, order := range []proto.Message{
		&actor.Stop{}, &actor.PoisonPill{}, &actor.Watch{}, &actor.Terminated{}, &protocluster.ClusterTopology{}, &remote.ActorPidRequest{},
	} {
		data, err := proto.Marshal(order)
		if err != nil {
			t.Fatal(err)
		}
		for _, target := range []string{cluster.ActivatorName, cluster.BoardName, "eventstream", "activator"} {
			w.send(&remote.RemoteMessage{MessageType: &remote.RemoteMessage_MessageBatch{MessageBatch: &remote.MessageBatch{
				TypeNames: []string{string(order.ProtoReflect().Descriptor().FullName())}, Targets: []string{target},
				Envelopes: []*remote.MessageEnvelope{{MessageData: data}},
			}}})
		}
	}
	w.batch([]string{envelopeType}, &remote.MessageEnvelope{MessageData: w.notice(topic, "after the orders")})
	eventually(t, func() string {
		if !slices.Contains(h.noticed(), "wire: after the orders") {
			return "the connection is dead"
		}
		return ""
	})
	if after := h.Membership(); after != before {
		t.Errorf("membership %+v, then %+v", before, after)
	}
	if n, err := h.metric("evently_cluster_messages_ignored_total"); n != 24 || err != nil {
		t.Errorf("%v messages ignored, want 24 (%v)", n, err)
	}
	response, err := h.System().Root.RequestFuture(actor.NewPID(h.Addr(), cluster.ActivatorName), &protocluster.ActivationRequest{
		ClusterIdentity: protocluster.NewClusterIdentity("e", kindEvent),
	}, patience).Result()
	if activated, ok := response.(*protocluster.ActivationResponse); !ok || activated.Failed {
		t.Errorf("the activator answers %v %v", response, err)
	}
}

func TestRemote_GarbledMessageEndsItsConnectionOnly(t *testing.T) {
	h := start(t)
	h.talk()
	garbled, other := dial(t, h), dial(t, h)
	garbled.batch([]string{envelopeType}, &remote.MessageEnvelope{MessageData: []byte{0xff}})
	if _, err := garbled.stream.Recv(); err == nil || errors.Is(err, io.EOF) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the connection: %v, want its end by an error", err)
	}
	garbled.connect()
	for name, w := range map[string]*wire{"same": garbled, "other": other} {
		w.batch([]string{envelopeType}, &remote.MessageEnvelope{MessageData: w.notice(topic, name)})
		eventually(t, func() string {
			if !slices.Contains(h.noticed(), "wire: "+name) {
				return name + " connection is dead"
			}
			return ""
		})
	}
}
