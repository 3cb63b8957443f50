package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/spf13/cobra"
)

// Bounds on what a node tells about its health.
const (
	healthMax      = 5 * time.Second
	healthBytesMax = 64 << 10
)

func (s *shell) healthCommand() *cobra.Command {
	var live bool
	command := &cobra.Command{
		Use:   "health",
		Short: "Ask the node on this machine how it is",
		Long: `Ask the node that serves on --http-addr how it is, and print its answers to GET /health and /readyz. Exit code 1 when
it is not ready or does not answer. For containers and supervisors that have no HTTP client of their own.`,
	}
	command.Flags().BoolVar(&live, "live", false, "ask only whether the process answers (GET /livez)")
	return s.configured(command, general|node, func(ctx context.Context, config *Config, _ *slog.Logger) error {
		paths := []string{"/health", "/readyz"}
		if live {
			paths = []string{"/livez"}
		}
		ctx, cancel := context.WithTimeout(ctx, healthMax)
		defer cancel()
		transport := &http.Transport{} // no proxy: the node is here
		defer transport.CloseIdleConnections()
		for _, path := range paths {
			if err := s.printAnswer(ctx, &http.Client{Transport: transport}, "http://"+reachable(config.HTTPAddr)+path); err != nil {
				return err
			}
		}
		return nil
	})
}

// printAnswer prints what is at a URL. It returns an error unless that is 200.
func (s *shell) printAnswer(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, healthBytesMax))
	if _, printErr := fmt.Fprintf(s.stdout, "%s\n", body); printErr != nil || err != nil {
		return errors.Join(err, printErr)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the node answered %s", response.Status)
	}
	return nil
}

// reachable is where a client on this machine finds what listens on an address.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address // the setting accepts only addresses: the request will say what is wrong
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
