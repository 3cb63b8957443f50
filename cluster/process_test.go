package cluster_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	protocluster "github.com/asynkron/protoactor-go/cluster"
	"go.uber.org/goleak"

	"github.com/evently/evently/cluster"
)

// specEnv, in the environment, makes the test binary run one member, obeying requests on its standard input.
const specEnv = "EVENTLY_TEST_MEMBER"

// spec configures a member in a process of its own.
type spec struct {
	Name, Remote, Gossip, KeyFile, CertFile string
	Profile                                 cluster.Profile
	Advertise                               cluster.Addrs
	Join                                    []string
	Quorum                                  int
	Kindless                                bool
}

// request is one order to such a member, a line of JSON; answer is what it replies.
type (
	request struct {
		Do, Identity, Arg string
		PID               [2]string // address, id
		N                 int
		Timeout           time.Duration
	}
	answer struct {
		Err     string
		Text    string
		N       int
		Members []cluster.Member
		State   cluster.Membership
		Texts   []string
		Owners  map[string]string
		PID     [2]string
	}
)

// runMember is the main function of a member process: start, obey until standard input ends, stop, look for leaks.
func runMember(text string) int {
	h, cfg, err := memberConfig(text)
	if err == nil {
		h.Node, err = cluster.Start(context.Background(), cfg)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	h.talk()
	out := json.NewEncoder(os.Stdout)
	err = out.Encode(answer{Text: h.ID(), PID: [2]string{h.Addr(), h.GossipAddr()}})
	for in := bufio.NewScanner(os.Stdin); err == nil && in.Scan(); {
		var r request
		if err = json.Unmarshal(in.Bytes(), &r); err == nil {
			err = out.Encode(obey(h, r))
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := errors.Join(err, h.Stop(ctx), goleak.Find(known)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func memberConfig(text string) (*host, cluster.Config, error) {
	h := newHost()
	cfg := h.config()
	var s spec
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return nil, cfg, err
	}
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	cfg.RemoteAddr, cfg.GossipAddr, cfg.KeyFile, cfg.Join, cfg.Quorum = s.Remote, s.Gossip, s.KeyFile, s.Join, s.Quorum
	cfg.AdvertiseAddrs = s.Advertise
	if s.Profile != "" {
		cfg.Profile = s.Profile
	}
	if s.Kindless {
		cfg.Kinds = nil
	}
	if s.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(s.CertFile, s.CertFile)
		if err != nil {
			return nil, cfg, err
		}
		pool := x509.NewCertPool()
		pool.AddCert(cert.Leaf)
		cfg.RemoteTLS = &tls.Config{
			Certificates: []tls.Certificate{cert}, RootCAs: pool, ClientCAs: pool,
			ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
		}
	}
	return h, cfg, nil
}

func obey(h *host, r request) (a answer) {
	ctx, cancel := context.WithTimeout(context.Background(), r.Timeout)
	defer cancel()
	var err error
	switch r.Do {
	case "members":
		a.Members = h.Members()
	case "ready":
		err = h.Ready()
	case "ask":
		a.Text, err = h.ask(ctx, r.Identity, r.Arg)
	case "owners": // of N identities, each asked by 5 callers at the same time
		a.Owners, err = askAll(ctx, h, r.N, 5)
	case "locate":
		var pid *actor.PID
		if pid, err = h.Locate(ctx, kindEvent, r.Identity); err == nil {
			a.PID = [2]string{pid.Address, pid.Id}
		}
	case "forget":
		h.Forget(kindEvent, r.Identity, actor.NewPID(r.PID[0], r.PID[1]))
	case "activate": // at the member Arg, owner or not
		var reply any
		reply, err = h.System().Root.RequestFuture(actor.NewPID(r.Arg, cluster.ActivatorName), &protocluster.ActivationRequest{
			ClusterIdentity: protocluster.NewClusterIdentity(r.Identity, kindEvent),
		}, r.Timeout).Result()
		if response, ok := reply.(*protocluster.ActivationResponse); ok {
			a.PID = [2]string{response.GetPid().GetAddress(), response.GetPid().GetId()}
			a.N = map[bool]int{true: 1}[response.Failed]
		}
	case "spawned":
		a.N = h.spawned(r.Identity)
	case "drained":
		a.N = h.drained()
	case "metric":
		var value float64
		value, err = h.metric(r.Arg)
		a.N = int(value)
	case "membership":
		a.State = h.Membership()
	case "withdraw":
		h.Withdraw()
	case "resume":
		h.Resume()
	case "flap": // N times, to end as a member that serves
		for range r.N {
			h.Withdraw()
			h.Resume()
		}
	case "owners by view":
		a.Owners = make(map[string]string)
		for i := range r.N {
			identity := fmt.Sprint("e", i)
			if id, ok := h.Owner(kindEvent, identity); ok {
				a.Owners[identity] = id
			}
		}
	case "notify": // N times, with the number behind Arg
		began := time.Now()
		for i := range r.N {
			h.Notify(r.Identity, []byte(fmt.Sprint(r.Arg, i)))
		}
		a.N = int(time.Since(began).Milliseconds())
	case "noticed":
		a.Texts = h.noticed()
	case "query": // of topic Identity at member PID[0], the body N times Arg
		began := time.Now()
		var body []byte
		body, err = h.Query(ctx, r.PID[0], r.Identity, []byte(strings.Repeat(r.Arg, max(1, r.N))))
		a.Text, a.N = string(body), int(time.Since(began).Milliseconds())
	case "queries": // N at the same time
		failures := make(chan error, r.N)
		for range r.N {
			go func() {
				_, err := h.Query(ctx, r.PID[0], r.Identity, nil)
				failures <- err
			}()
		}
		for range r.N {
			err = errors.Join(err, <-failures)
		}
	case "send later type": // to the activator and the notice board at Arg
		err = sendLaterType(h, r.Arg)
	case "accuse":
		err = h.Accuse(r.Arg)
	case "misjudge":
		err = h.Misjudge(r.Arg)
	case "await end":
		select {
		case <-h.Done():
			err = h.Err()
		case <-ctx.Done():
			a.Text = "still serving"
		}
	case "drain":
		err = h.Drain(ctx)
	case "stop":
		err = h.Stop(ctx)
	default:
		err = fmt.Errorf("unknown request %q", r.Do)
	}
	if err != nil {
		a.Err = err.Error()
	}
	return a
}

func askAll(ctx context.Context, h *host, n, callers int) (map[string]string, error) {
	var mu sync.Mutex
	var group sync.WaitGroup
	var failures []error
	owners := make(map[string]string, n)
	for i := range n {
		identity := fmt.Sprint("e", i)
		for range callers {
			group.Go(func() {
				id, err := h.ask(ctx, identity, "where")
				mu.Lock()
				defer mu.Unlock()
				if known, ok := owners[identity]; ok && known != id {
					err = fmt.Errorf("%s is served by %s and %s", identity, known, id)
				}
				failures = append(failures, err)
				owners[identity] = id
			})
		}
	}
	group.Wait()
	return owners, errors.Join(failures...)
}

// process is a member in a process of its own, as seen from the test.
type process struct {
	t                    testing.TB
	id, addr, gossipAddr string

	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *json.Decoder
	log    bytes.Buffer // its standard error; read it after the end only
	killed bool
	ended  sync.Once
}

// launch starts a member process. When the test ends it must stop without an error, a leak or a race.
func launch(t testing.TB, s spec) *process {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), specEnv+"="+string(text))
	p.cmd.Stderr = &p.log
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = json.NewDecoder(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.end)
	var hello answer
	if err := p.out.Decode(&hello); err != nil {
		t.Fatalf("member did not start: %v", err)
	}
	p.id, p.addr, p.gossipAddr = hello.Text, hello.PID[0], hello.PID[1]
	return p
}

// end stops the member and waits until its process is gone.
func (p *process) end() {
	p.ended.Do(func() {
		p.in.Close() // an error means that it is gone, which Wait tells better
		err := p.cmd.Wait()
		if err != nil && !p.killed || strings.Contains(p.log.String(), "DATA RACE") {
			p.t.Errorf("member %s: %v", p.id, err)
		}
	})
	if p.t.Failed() {
		p.t.Logf("log of member %s:\n%s", p.id, &p.log)
	}
}

// kill ends the process without notice to anybody.
func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	p.killed = true
}

// try sends a request and returns the answer, which may be an error.
func (p *process) try(r request) answer {
	p.t.Helper()
	if r.Timeout == 0 {
		r.Timeout = patience
	}
	line, err := json.Marshal(r)
	if err != nil {
		p.t.Fatal(err)
	}
	var a answer
	if _, err = p.in.Write(append(line, '\n')); err == nil {
		err = p.out.Decode(&a)
	}
	if err != nil {
		p.t.Errorf("%s on member %s: %v", r.Do, p.id, err)
	}
	return a
}

// do sends a request that must work.
func (p *process) do(r request) answer {
	p.t.Helper()
	a := p.try(r)
	if a.Err != "" {
		p.t.Errorf("%s on member %s: %s", r.Do, p.id, a.Err)
	}
	return a
}

// fail sends a request that must fail with want.
func (p *process) fail(r request, want error) {
	p.t.Helper()
	if a := p.try(r); !strings.Contains(a.Err, want.Error()) {
		p.t.Errorf("%s on member %s: got %q, want %q", r.Do, p.id, a.Err, want)
	}
}

func (p *process) metric(name string) int {
	p.t.Helper()
	return p.do(request{Do: "metric", Arg: name}).N
}
