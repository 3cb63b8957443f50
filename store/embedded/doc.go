// Package embedded runs a private Postgres over the machine's installed binaries.
//
// It is the database of `evently up` and of the tests: nothing to set up, nothing left running, and the
// same durability as a server of one's own (only UnsafeNoFsync weakens it, for tests).
//
// # Data directory
//
//	DataDir/              made 0755 if missing, else left as it is
//	  pgdata/             Postgres' own, 0700, owned by the account that runs it
//	  run/                the socket, 0700, same owner (elsewhere if the path would be too long)
//	  owner.lock          held by the process that called Start
//	  owner.dsn           how to reach its server, for processes that come second
//	  server.lock         held by every process of the server itself
//	  tcp.password        made when TCP is first asked for, as is tcp_hba.conf, which asks for it
//	  initdb-*/           a pgdata in the making
//
// Invariants:
//   - One owner. A second Start returns an InUseError with the DSN of the first.
//   - One server. Its processes inherit server.lock, so the lock is free exactly when the last of them has
//     ended, whatever became of the owner. Start waits for that, and then knows that a postmaster.pid or
//     socket still lying there is stale.
//   - pgdata appears whole: initdb writes to a directory beside it, which is renamed when it is complete.
//   - No server outlives its owner: on Linux the kernel interrupts the postmaster when the owner dies, by
//     kill -9 too; elsewhere the next Start interrupts what it finds.
//   - Nothing that holds data is ever deleted: another version's directory, or one that is damaged, is
//     refused with the steps to take.
//
// # Accounts
//
// Postgres refuses to run as root, so root starts it as the owner of pgdata, which for a new one is the
// account postgres or, where that does not exist, nobody. That account must be able to enter every parent of
// DataDir. Directories that Start makes can be entered; those it finds are never changed: if one is closed
// Start returns a ReachError that names it. Callers with a choice of places can ask Reachable first.
//
// # Failures
//
// A server that does not come up, or dies, is reported with the tail of its log, and nothing is left running.
// After Done has fired Stop still has to be called; Start may then be called again, and recovers.
package embedded
