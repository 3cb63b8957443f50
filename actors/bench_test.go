package actors

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/evently/evently"
	"github.com/evently/evently/actors/eventpb"
)

// What a request to another node and its answer cost both of them, but for the network.
func BenchmarkRemoteCodec(b *testing.B) {
	request := book(1, 2)
	office := NewBoxOffice[int](newTenure(newEvent(3)))
	office.Step(1, request, opening)
	office.Flush()
	answers, _ := office.Committed(opening)
	message, err := proto.Marshal(encodeRequest(request))
	if err != nil {
		b.Fatal(err)
	}
	response, err := proto.Marshal(encodeOutcome(&answers[0].Reply, answers[0].Err))
	if err != nil {
		b.Fatal(err)
	}
	for name, do := range map[string]func() error{
		"encode request": func() error { _, err := proto.Marshal(encodeRequest(request)); return err },
		"decode request": func() error {
			var m eventpb.Request
			if err := proto.Unmarshal(message, &m); err != nil {
				return err
			}
			_, err := decodeRequest(&m, 77)
			return err
		},
		"encode answer": func() error { _, err := proto.Marshal(encodeOutcome(&answers[0].Reply, nil)); return err },
		"decode answer": func() error {
			var m eventpb.Response
			if err := proto.Unmarshal(response, &m); err != nil {
				return err
			}
			_, err := decodeOutcome(&m, request)
			return err
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := do(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// instant is a journal of any event, that has committed as soon as it is asked.
type instant struct{}

func (instant) Acquire(_ context.Context, id evently.EventID) (*evently.Tenure, error) {
	event := newEvent(1000)
	event.ID = id
	return newTenure(event), nil
}

func (instant) Append(batch *evently.Batch) error {
	batch.Done(opening, nil)
	return nil
}

func (instant) Committed(*evently.State) {}

// many finds the actors of many events.
type many struct {
	system *actor.ActorSystem
	props  func(identity string) *actor.Props
	pids   sync.Map
}

func (m *many) Locate(_ context.Context, _, identity string) (*actor.PID, error) {
	if pid, ok := m.pids.Load(identity); ok {
		return pid.(*actor.PID), nil
	}
	pid, err := m.system.Root.SpawnNamed(m.props(identity), identity)
	m.pids.Store(identity, pid)
	return pid, err
}

func (m *many) Forget(string, string, *actor.PID) {}

// One operation is the activation of an event and its first booking; the actor stays. B/event is what all that costs while it is not used.
func BenchmarkEventActor_Memory(b *testing.B) {
	heap := func() float64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return float64(stats.HeapAlloc + stats.StackInuse)
	}
	system := newSystem()
	defer system.Shutdown()
	metrics := NewMetrics(prometheus.NewRegistry())
	props := NewKind(Config{
		Journal: instant{}, Observer: instant{}, Logger: slog.New(slog.DiscardHandler), Metrics: metrics, IdleAfter: time.Hour,
		Now: func() time.Time { return opening },
	})
	engine := NewEngine(system, &many{system: system, props: props}, nil, metrics)
	before := heap()
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		request := book(i+1, 1)
		request.Event = evently.EventID(i + 1)
		if _, err := engine.Do(b.Context(), request); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric((heap()-before)/float64(b.N), "B/event")
}
