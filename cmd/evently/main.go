// Command evently is the booking engine: the node, its database, and the tools to look after both.
//
// Everything is wired here and nowhere else: settings (setting.go, config.go), commands (command.go and a file for each),
// and the running node (program.go), which starts its parts in order and stops them in the opposite one. The whole
// program is one call of run, which the tests use as the binary does.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // events have time zones, and containers may have no data on them
)

func main() {
	ctx, stop := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup makes it
		signal.Notify(signals, syscall.SIGHUP) // the terminal is gone
	}
	go func() {
		<-signals
		stop() // asks the program to drain
		second := <-signals
		signal.Reset() // so that it has its usual effect: the end
		if err := syscall.Kill(os.Getpid(), second.(syscall.Signal)); err != nil {
			os.Exit(exitFailed)
		}
	}()
	go collectGarbage(ctx)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv)
	if code == exitRestart {
		code = exitOK // when it was asked to stop meanwhile
		if ctx.Err() == nil {
			code = exitFailed
			fmt.Fprintf(os.Stderr, "evently: restart: %v\n", restart())
		}
	}
	os.Exit(code)
}

// restart replaces this process by a new one of the same command line. It returns only if that fails.
func restart() error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(program, os.Args, os.Environ())
}
