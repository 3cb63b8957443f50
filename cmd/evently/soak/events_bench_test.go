package soak

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/evently/evently"
	"github.com/evently/evently/cmd/evently/proctest"
)

// copyEventSQL makes $1 events that are like $2 but for their ids, from 1 on.
const copyEventSQL = `
create temporary table copied on commit drop as select e.* from events e, generate_series(1, $1);
update copied set event_id = numbered.n
from (select ctid as place, row_number() over () as n from copied) numbered where copied.ctid = numbered.place;
insert into events select * from copied;

create temporary table heads on commit drop as select h.* from event_heads h, generate_series(1, $1) where h.event_id = $2;
update heads set event_id = numbered.n
from (select ctid as place, row_number() over () as n from heads) numbered where heads.ctid = numbered.place;
insert into event_heads select * from heads;

create temporary table entries on commit drop as select j.* from journal j, generate_series(1, $1) where j.event_id = $2;
update entries set event_id = numbered.n
from (select ctid as place, row_number() over (partition by seq) as n from entries) numbered where entries.ctid = numbered.place;
insert into journal select * from entries`

// One operation is the first booking of an event at a node. In the end all of their actors are in memory, and with the benchmark's
// own number of 100,000 events this shows what that takes:
//
//	go test -run - -bench ActiveEvents -benchtime 100000x ./cmd/evently/soak
func BenchmarkActiveEvents(b *testing.B) {
	const clients = 32
	dir := proctest.DataDir(b)
	node := proctest.Up(b, dir, "--log-level=warn", "--access-ttl=12h", "--rate-limit-book=off")
	admin := node.Client(b, node.Login(b))
	first := admin.Must(b, 201, "POST", "/admin/events", "first", proctest.EventBody("First", 100, holdOfEvents)).Seats(b).ID
	copyEvents(b, dir, first, b.N)
	tokens := node.Users(b, 8)
	load := proctest.Plain(b)
	memory := func() (heap, resident float64) {
		proctest.Eventually(b, proctest.UpMax, func() error { return node.CollectGarbage(b.Context()) })
		percent := node.Metric(b, "go_gc_gogc_percent")
		return node.Metric(b, "go_memstats_next_gc_bytes") / (1 + percent/100), node.Metric(b, "process_resident_memory_bytes")
	}
	heapBefore, _ := memory()
	var next, failed atomic.Int64
	var crowd sync.WaitGroup
	b.ResetTimer()
	for number := range clients {
		client := &proctest.Client{HTTP: load, API: node.API, Token: tokens[number%len(tokens)]}
		crowd.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				event := evently.EventID(n)
				answer, err := client.Send(b.Context(), "POST", "/events/"+event.String()+"/book", "first", `{"quantity":1}`)
				if err != nil || answer.Status != 201 {
					failed.Add(1)
				}
			}
		})
	}
	crowd.Wait()
	b.StopTimer()
	heap, resident := memory()
	active := node.Metric(b, "evently_event_actors")
	if active+float64(failed.Load()) < float64(b.N) {
		b.Errorf("%.0f of %d events are active, %d bookings failed", active, b.N, failed.Load())
	}
	b.ReportMetric((heap-heapBefore)/active, "heap-B/event")
	b.ReportMetric(resident/1e6, "resident-MB")
	b.ReportMetric(active, "events")
}

const holdOfEvents = 12 * time.Hour // longer than the benchmark: actors with holds stay

func copyEvents(b *testing.B, dir, like string, count int) {
	b.Helper()
	id, err := evently.ParseEventID(like)
	if err != nil {
		b.Fatal(err)
	}
	url := proctest.Launch(b, dir, "database", "url")
	if exit := url.Exit(b, proctest.UpMax); exit != proctest.ExitOK {
		b.Fatalf("exit %d: %s", exit, url.Output())
	}
	conn, err := pgx.Connect(b.Context(), strings.TrimSpace(url.Output()))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(context.Background())
	statement := strings.NewReplacer("$1", fmt.Sprint(count), "$2", fmt.Sprint(int64(id))).Replace(copyEventSQL)
	if _, err := conn.Exec(b.Context(), "begin; "+statement+"; commit", pgx.QueryExecModeSimpleProtocol); err != nil {
		b.Fatal(err)
	}
}
