// Package bench measures a booking system over HTTP as its clients see it, audits what they were told, and compares designs.
//
// # How a figure comes about
//
// A Host starts a system, the Target. A Load has users visit events of it: in a closed loop, which shows what the system can do, or
// in an open one, where people come at a rate of their own and a system that stalls keeps them waiting (see Load). Each connection
// has a recorder of its own; they are merged when the load is over. Then AuditOf compares what clients were told with what is
// stored: every acknowledged booking is there, nothing is oversold, no key has two reservations, counters are right. A Plan does
// this for all designs in turns, so that what comes and goes on the machine meets all of them, and Summaries takes medians.
//
// A figure counts only when the audit agrees. An answer that is not what was asked for is a failure and never something done.
//
// # What the load generator costs
//
// It shares the machine with the system. So it has a goroutine and a connection for each client, requests are put together in place
// and answers are looked through for the little that is checked. What it uses stands beside what the system uses (CPU.Load).
package bench
