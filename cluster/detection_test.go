package cluster_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/evently/evently/cluster"
)

// BenchmarkKilledMember measures how long after a kill -9 of one member all its identities are served again.
func BenchmarkKilledMember(b *testing.B) {
	for _, c := range []struct {
		profile cluster.Profile
		members int
	}{{cluster.ProfileLAN, 3}, {cluster.ProfileLAN, 5}, {cluster.ProfileFast, 3}, {cluster.ProfileFast, 5}, {cluster.ProfileLocal, 3}} {
		b.Run(fmt.Sprint(c.profile, " ", c.members, " members"), func(b *testing.B) {
			var longest time.Duration
			for range b.N {
				b.StopTimer()
				members := form(b, c.profile, c.members)
				killed := members[len(members)-1]
				var lost []string
				for identity, id := range owners(b, 20*c.members, members...) {
					if id == killed.id {
						lost = append(lost, identity)
					}
				}
				killed.kill()
				b.StartTimer()
				began := time.Now()
				for _, identity := range lost {
					members[0].do(request{Do: "ask", Identity: identity, Arg: "where"})
				}
				longest = max(longest, time.Since(began))
				b.StopTimer()
				for _, m := range members {
					m.end()
				}
			}
			b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/kill")
			b.ReportMetric(longest.Seconds(), "s-longest")
		})
	}
}

// BenchmarkPausedMember counts how many of the members that stop running for a while are taken for dead.
func BenchmarkPausedMember(b *testing.B) {
	for _, c := range []struct {
		profile cluster.Profile
		pause   time.Duration
	}{{cluster.ProfileLAN, 2500 * time.Millisecond}, {cluster.ProfileLAN, 3 * time.Second}, {cluster.ProfileFast, time.Second}} {
		b.Run(fmt.Sprint(c.profile, " ", c.pause), func(b *testing.B) {
			members := form(b, c.profile, 3)
			paused := members[2]
			evicted := 0
			for range b.N {
				before := members[0].metric("evently_cluster_view_changes_total")
				for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT} {
					if err := paused.cmd.Process.Signal(sig); err != nil {
						b.Fatal(err)
					}
					<-time.After(c.pause) // afterwards as long again, to see what comes of it
				}
				if members[0].metric("evently_cluster_view_changes_total") != before {
					evicted++
					members = form(b, c.profile, 3)
					paused = members[2]
				}
			}
			b.ReportMetric(float64(evicted)/float64(b.N), "evicted/pause")
		})
	}
}
