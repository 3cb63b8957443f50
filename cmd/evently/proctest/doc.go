// Package proctest runs the program for tests: real processes of a built evently over a real Postgres, clients that make
// load and remember what they were promised, and an audit that compares the promises with the rows.
//
// A package's TestMain wraps its tests in Wrap, which builds the program once:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(proctest.Wrap(m)) }
//
//	func TestSales(t *testing.T) {
//		cluster := proctest.Start(t, proctest.Config{Nodes: 3})
//		crowd := cluster.Crowd(t, proctest.Sales{Events: 30})
//		crowd.Open(t, 8)
//		crowd.More(t, 300)
//		cluster.Members[0].Crash(t)
//		...
//		cluster.Audit(t, crowd)
//	}
//
// Invariants:
//   - Processes end with the test, and with the test process even if that is killed (Linux).
//   - Nodes of a Cluster keep their addresses and arguments over restarts, and each test has loopback addresses of its own,
//     so that packages can test at the same time.
//   - A Crowd asks again with the same key until it has an answer. So in the end every promise is known, and one that the
//     rows do not keep is lost.
//   - Nothing waits for a fixed time: all that concerns other processes is polled, and bounded by a deadline that a busy
//     machine can keep.
package proctest
