package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/evently/evently/cmd/evently/proctest"
	"github.com/evently/evently/store/pgtest"
)

// sixDigits is a code in a mail, where it stands alone.
var sixDigits = regexp.MustCompile(`(?m)^\s*(\d{6})\s*$`)

// mailedCode waits for the newest mail of a kind in the mailbox of the operators and returns its code, which is none of the known ones.
func mailedCode(t *testing.T, n *proctest.Server, to, kind string, known ...string) (code string) {
	t.Helper()
	proctest.Eventually(t, proctest.UpMax, func() error {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.Operations+"/dev/mailbox?to="+url.QueryEscape(to), nil)
		if err != nil {
			return err
		}
		request.Close = true
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			return err
		}
		var box struct{ Data []struct{ Kind, Text string } }
		if err := json.Unmarshal(text, &box); err != nil {
			return fmt.Errorf("%w in %s", err, text)
		}
		for _, mail := range box.Data {
			match := sixDigits.FindStringSubmatch(mail.Text)
			if mail.Kind != kind || match == nil {
				continue
			}
			if code = match[1]; len(known) == 0 || code != known[0] {
				return nil
			}
		}
		return fmt.Errorf("no new code in %s", text)
	})
	return code
}

type signedIn struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
}

// signsIn is a sign-in of Ada.
func signsIn(t *testing.T, c *proctest.Client, password string) (tokens signedIn) {
	t.Helper()
	into(t, c.Must(t, 200, "POST", "/login", "", fmt.Sprintf(`{"email":"ada@example.com","password":%q}`, password)), &tokens)
	return tokens
}

// refused waits until a node refuses a token, and returns how long that took.
func refused(t *testing.T, c *proctest.Client) time.Duration {
	t.Helper()
	begun := time.Now()
	proctest.Eventually(t, 10*time.Second, func() error {
		got, err := c.Send(t.Context(), "GET", "/me", "", "")
		if err == nil && got.Status != 401 {
			err = fmt.Errorf("status %d", got.Status)
		}
		return err
	})
	return time.Since(begun)
}

// The codes come by mail, and a booking waits for one.
func TestAccounts_VerifiedAndResetByMail(t *testing.T) {
	t.Parallel()
	o := openTheatre(t, 0, "--require-verified-email=true")
	path := o.show(t, 10, time.Hour, nil)
	anybody := o.Client(t, "")
	anybody.Must(t, 201, "POST", "/register", "", `{"email":"ada@example.com","password":"a-long-enough-password","name":"Ada"}`)
	ada := o.Client(t, signsIn(t, anybody, "a-long-enough-password").AccessToken)
	if code := ada.Must(t, 403, "POST", path+"/book", "k", `{"quantity":1}`).Code(t); code != "email_unverified" {
		t.Errorf("refused with %s", code)
	}
	code := mailedCode(t, &o.Server, "ada@example.com", "verify_email")
	anybody.Must(t, 200, "POST", "/verify", "", fmt.Sprintf(`{"email":"ada@example.com","code":%q}`, code))
	ada.Must(t, 201, "POST", path+"/book", "k", `{"quantity":1}`) // with the token from before
	// The administrator was made verified.
	o.admin.Must(t, 201, "POST", path+"/book", "k", `{"quantity":1}`)

	anybody.Must(t, 202, "POST", "/password/forgot", "", `{"email":"ada@example.com"}`)
	anybody.Must(t, 202, "POST", "/password/forgot", "", `{"email":"nobody@example.com"}`)
	code = mailedCode(t, &o.Server, "ada@example.com", "reset_password")
	reset := fmt.Sprintf(`{"email":"ada@example.com","code":%q,"new_password":"another-long-password"}`, code)
	anybody.Must(t, 204, "POST", "/password/reset", "", reset)
	refused(t, ada)
	anybody.Must(t, 401, "POST", "/login", "", `{"email":"ada@example.com","password":"a-long-enough-password"}`)
	anybody.Must(t, 400, "POST", "/password/reset", "", reset)
	signsIn(t, anybody, "another-long-password")

	// No code can be read in the database.
	var found bool
	const codesSQL = `select exists (select from one_time_codes where encode(mac, 'escape') like '%' || $1 || '%') or
		exists (select from river_job where args::text like '%' || $1 || '%')`
	if err := o.db.QueryRow(t.Context(), codesSQL, code).Scan(&found); err != nil || found {
		t.Errorf("the code %s stands in the database: %t, %v", code, found, err)
	}
	o.Signal(t, syscall.SIGTERM)
	o.Exit(t, proctest.StopMax)
}

// What one node revokes the others refuse within a second, and rights follow roles.
func TestAccounts_RevocationsAndRolesReachAllNodes(t *testing.T) {
	t.Parallel()
	cluster := proctest.Start(t, proctest.Config{Nodes: 2, Profile: "wan", Args: []string{"--rate-limit-auth=off"}})
	here, there := &cluster.Members[0].Server, &cluster.Members[1].Server
	admin, anybody := here.Client(t, here.Login(t)), here.Client(t, "")
	var registered struct{ User struct{ ID string } }
	into(t, anybody.Must(t, 201, "POST", "/register", "", `{"email":"ada@example.com","password":"a-long-enough-password","name":"Ada"}`), &registered)
	var took []time.Duration
	for _, role := range []string{"organizer", "admin", "user", "admin"} {
		before := signsIn(t, anybody, "a-long-enough-password")
		there.Client(t, before.AccessToken).Must(t, 200, "GET", "/me", "", "")
		admin.Must(t, 200, "PUT", "/admin/users/"+registered.User.ID+"/role", "", fmt.Sprintf(`{"role":%q}`, role))
		took = append(took, refused(t, there.Client(t, before.AccessToken)))

		after := signsIn(t, anybody, "a-long-enough-password")
		status := map[bool]int{true: 200, false: 403}
		there.Client(t, after.AccessToken).Must(t, status[role == "admin"], "GET", "/admin/users", "", "")
		there.Client(t, after.AccessToken).Must(t, status[role != "user"], "GET", "/admin/events", "", "")
		here.Client(t, after.AccessToken).Must(t, 204, "POST", "/logout", "", "")
		took = append(took, refused(t, there.Client(t, after.AccessToken)))
	}
	slices.Sort(took)
	if median := took[len(took)/2]; median > time.Second { // the machine may stand still for a moment
		t.Errorf("refused elsewhere after %v", took)
	}
}

// A secret is rotated over three starts: nobody is signed out as long as the past one is told.
func TestAccounts_SecretsRotate(t *testing.T) {
	t.Parallel()
	const first, second = "pJ5m/0a7kTq3vX9zWc1LrY8uBn4eHs6GdFo2", "Zr8-2kQw!x6TnV4bLc0yHe9uJf3sMd7gPa1i"
	dir, dsn := proctest.DataDir(t), pgtest.Database(t)
	start := func(secrets ...string) *proctest.Node {
		args := []string{"--database-url=" + dsn, "--jwt-secret-file=" + write(t, "secret", secrets[0]+"\n")}
		if len(secrets) > 1 {
			args = append(args, "--jwt-past-secrets-file="+write(t, "past", secrets[1]+"\n"))
		}
		return proctest.Up(t, dir, args...)
	}
	stop := func(n *proctest.Node) {
		n.Signal(t, syscall.SIGTERM)
		n.Exit(t, proctest.StopMax)
	}
	n := start(first)
	anybody := n.Client(t, "")
	anybody.Must(t, 201, "POST", "/register", "", `{"email":"ada@example.com","password":"a-long-enough-password","name":"Ada"}`)
	old := signsIn(t, anybody, "a-long-enough-password")
	code := mailedCode(t, &n.Server, "ada@example.com", "verify_email")
	stop(n)

	n = start(second, first)
	n.Client(t, old.AccessToken).Must(t, 200, "GET", "/me", "", "")
	fresh := signsIn(t, n.Client(t, ""), "a-long-enough-password")
	n.Client(t, "").Must(t, 200, "POST", "/verify", "", fmt.Sprintf(`{"email":"ada@example.com","code":%q}`, code))
	stop(n)

	n = start(second)
	n.Client(t, fresh.AccessToken).Must(t, 200, "GET", "/me", "", "")
	n.Client(t, old.AccessToken).Must(t, 401, "GET", "/me", "", "")
	into(t, n.Client(t, "").Must(t, 200, "POST", "/token/refresh", "", fmt.Sprintf(`{"refresh_token":%q}`, old.RefreshToken)), &old)
	n.Client(t, old.AccessToken).Must(t, 200, "GET", "/me", "", "")
	stop(n)
}
