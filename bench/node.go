package bench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// Node is an evently process with an embedded Postgres of its own, which flushes every commit to disk.
type Node struct {
	Addr      string // host:port of the API
	AdminAddr string // host:port of metrics and profiles

	program string
	dir     string
	process *exec.Cmd
	admin   string // access token of the administrator
}

const (
	adminPassword = "correct-horse-battery-staple"
	startMax      = 5 * time.Minute // the first start may install Postgres
)

// StartNode builds the program from this module and starts it with a fresh data directory below dir.
func StartNode(dir string, env ...string) (*Node, error) {
	n := &Node{program: filepath.Join(dir, "evently"), dir: filepath.Join(dir, "data")}
	if out, err := exec.Command("go", "build", "-o", n.program, "github.com/evently/evently/cmd/evently").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build evently: %w\n%s", err, out)
	}
	n.process = exec.Command(n.program, "up", "--data-dir", n.dir, "--http-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0")
	n.process.Env = append(append(os.Environ(), "EVENTLY_ADMIN_PASSWORD="+adminPassword, "EVENTLY_RATE_LIMIT_BOOK=off",
		"EVENTLY_RATE_LIMIT_AUTH=off", "EVENTLY_LOG_LEVEL=warn", "EVENTLY_ACCESS_TTL=12h"), env...)
	n.process.Stderr = os.Stderr
	stdout, err := n.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := n.process.Start(); err != nil {
		return nil, err
	}
	if err := n.awaitReady(stdout); err != nil {
		return nil, errors.Join(err, n.Stop())
	}
	n.admin, err = n.login("admin@evently.local", adminPassword)
	if err != nil {
		return nil, errors.Join(err, n.Stop())
	}
	return n, nil
}

var announced = regexp.MustCompile(`^(API|Operations) +http://([0-9.]+:[0-9]+)`)

func (n *Node) awaitReady(stdout io.Reader) error {
	timer := time.AfterFunc(startMax, func() { _ = n.process.Process.Kill() })
	defer timer.Stop()
	var said []string
	for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
		said = append(said, scanner.Text())
		if match := announced.FindStringSubmatch(scanner.Text()); match != nil && match[1] == "API" {
			n.Addr = match[2]
		} else if match != nil {
			n.AdminAddr = match[2]
		}
		if strings.HasPrefix(scanner.Text(), "Ready.") {
			go io.Copy(io.Discard, stdout) //nolint:errcheck // until the process ends
			return nil
		}
	}
	return fmt.Errorf("evently did not get ready:\n%s", strings.Join(said, "\n"))
}

// Stop ends the process in order and waits for it.
func (n *Node) Stop() error {
	if err := n.process.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return n.process.Wait()
}

// Verify runs `evently verify` on the data of a stopped node. Its error holds the differences.
func (n *Node) Verify() error {
	if out, err := exec.Command(n.program, "verify", "--data-dir", n.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("evently verify: %w\n%s", err, out)
	}
	return nil
}

// Users registers users and returns their access tokens.
func (n *Node) Users(count int) ([]string, error) {
	tokens := make([]string, count)
	for i := range tokens {
		email, password := fmt.Sprintf("user%d@example.com", i), "a-long-enough-password"
		if err := n.post("/register", "", map[string]any{"email": email, "password": password, "name": "User"}, nil); err != nil {
			return nil, err
		}
		token, err := n.login(email, password)
		if err != nil {
			return nil, err
		}
		tokens[i] = token
	}
	return tokens, nil
}

func (n *Node) login(email, password string) (string, error) {
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	err := n.post("/login", "", map[string]any{"email": email, "password": password}, &answer)
	return answer.AccessToken, err
}

// CreateEvent publishes an event of one tier whose holds last a day, and returns its id.
func (n *Node) CreateEvent(capacity int) (string, error) {
	starts := time.Now().Add(100 * 24 * time.Hour)
	var event struct {
		ID string `json:"id"`
	}
	err := n.post("/admin/events", n.admin, map[string]any{
		"name": "Hot event", "starts_at": starts, "ends_at": starts.Add(time.Hour), "timezone": "UTC", "currency": "EUR",
		"capacity": capacity, "base_price_minor": 1000, "hold_ttl_seconds": 86400,
	}, &event)
	return event.ID, err
}

// Held returns the seats of an event that are held, as the node tells everybody.
func (n *Node) Held(event string) (held int, err error) {
	var answer struct{ Held int }
	response, err := http.Get("http://" + n.Addr + "/events/" + event + "/availability")
	if err != nil {
		return 0, err
	}
	return answer.Held, errors.Join(decode(response, &answer), err)
}

func (n *Node) post(path, token string, body, answer any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequest(http.MethodPost, "http://"+n.Addr+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	if err := decode(response, answer); err != nil {
		return fmt.Errorf("POST %s: %w", path, err)
	}
	return nil
}

func decode(response *http.Response, answer any) error {
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		return fmt.Errorf("%s: %s", response.Status, body)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(body, answer)
}
