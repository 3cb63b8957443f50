package http

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/evently/evently"
	"github.com/evently/evently/http/apitest"
	"github.com/evently/evently/store"
	"github.com/evently/evently/store/pgtest"
)

// codeMails is a queue of mails that keeps the codes.
type codeMails struct {
	mu    sync.Mutex
	mails []evently.CodeMail
}

func (m *codeMails) EnqueueCode(_ context.Context, _ pgx.Tx, mail *evently.CodeMail) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mails = append(m.mails, *mail)
	return nil
}

// last is the newest code for an address and a purpose.
func (m *codeMails) last(t *testing.T, email string, purpose evently.CodePurpose) string {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, mail := range slices.Backward(m.mails) {
		if mail.To == email && mail.Purpose == purpose {
			return mail.Code
		}
	}
	t.Fatalf("no %s for %s", purpose, email)
	return ""
}

// bureau is some nodes over one Postgres.
type bureau struct {
	nodes []*site
	mails *codeMails
	pool  *pgxpool.Pool
	clock *fakeClock
}

// newBureau starts nodes that follow each other's revocations as in production. Each may have its own secrets.
func newBureau(t *testing.T, secrets ...[]Secret) *bureau {
	t.Helper()
	pool, err := store.Open(t.Context(), pgtest.Database(t), store.PoolOptions{MaxConns: 16})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	b := &bureau{mails: new(codeMails), pool: pool, clock: newFakeClock()}
	for _, own := range secrets {
		node := newSite(t, func(config *Config) {
			config.Accounts, config.Answers = store.NewAccounts(pool, b.mails), store.NewAnswers(pool)
			config.Tokens.Secrets, config.Now, config.PasswordHashesMax = own, b.clock.Now, guessesAtOnce
		})
		node.clock = b.clock
		node.client = apitest.NewClient(t, node.url)
		if err := node.server.revoked.start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(node.server.revoked.stop)
		listener := store.NewListener(pool, store.Handlers{
			SessionEnded: node.server.SessionEnded, EventChanged: node.server.EventChanged, Resumed: node.server.SignalsResumed,
		}, slog.New(slog.DiscardHandler), store.NewMetrics(prometheus.NewRegistry()))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			listener.Run(ctx)
		}()
		t.Cleanup(func() {
			stop()
			<-done
		})
		b.nodes = append(b.nodes, node)
	}
	return b
}

// guessesAtOnce is how many passwords are guessed, and hashed, at the same time.
const guessesAtOnce = 24

var (
	oneSecret   = []Secret{testSecret}
	freshSecret = Secret{KID: "k2", Key: []byte("fedcba9876543210fedcba9876543210")}
)

// atOnce posts bodies to all nodes in turn, at the same time.
func (b *bureau) atOnce(t *testing.T, n int, path string, body func(i int) string) []*answer {
	t.Helper()
	answers, failures := make([]*answer, n), make([]error, n)
	begin := make(chan struct{})
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			<-begin
			answers[i], failures[i] = b.nodes[i%len(b.nodes)].try(t.Context(), "POST", path, body(i))
		})
	}
	close(begin)
	group.Wait()
	for _, err := range failures {
		if err != nil {
			t.Fatal(err)
		}
	}
	return answers
}

// refusedWithinASecond waits until a node refuses a token, for the time that the contract allows.
func (w *site) refusedWithinASecond(t *testing.T, token string) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	begun := time.Now()
	for w.do(t, "GET", "/me", "", "Authorization", "Bearer "+token).status != http.StatusUnauthorized {
		if took := time.Since(begun); took > time.Second {
			t.Fatalf("still accepted after %s", took)
		}
		<-ticker.C
	}
}

// From the registration to the end, over two nodes.
func TestAccountsOverPostgres_LifeOfAnAccount(t *testing.T) {
	b := newBureau(t, oneSecret, oneSecret)
	here, there := b.nodes[0], b.nodes[1]
	here.register(t, adaRegisters)
	if a := there.do(t, "POST", "/verify", codeBody("ada@example.com", b.mails.last(t, "ada@example.com", evently.VerifyEmailCode))); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	laptop, phone := here.login(t, adaSignsIn, "User-Agent", "Laptop"), there.login(t, adaSignsIn, "User-Agent", "Phone")
	there.do(t, "POST", "/token/refresh", refreshBody(phone.RefreshToken)).decode(t, &phone)

	// The password changes on one device: the other is signed out, on both nodes.
	change := `{"password":"correct horse","new_password":"a new password"}`
	if a := here.do(t, "POST", "/me/password", change, "Authorization", "Bearer "+laptop.AccessToken); a.status != http.StatusNoContent {
		t.Fatalf("%d %s", a.status, a.body)
	}
	here.refusedWithinASecond(t, phone.AccessToken)
	there.refusedWithinASecond(t, phone.AccessToken)
	there.do(t, "POST", "/token/refresh", refreshBody(phone.RefreshToken)).problem(t, evently.CodeUnauthenticated)

	// It is forgotten: all are signed out.
	there.do(t, "POST", "/password/forgot", `{"email":"ada@example.com"}`)
	code := b.mails.last(t, "ada@example.com", evently.ResetPasswordCode)
	if a := there.do(t, "POST", "/password/reset", resetBody("ada@example.com", code, "correct horse")); a.status != http.StatusNoContent {
		t.Fatalf("%d %s", a.status, a.body)
	}
	here.refusedWithinASecond(t, laptop.AccessToken)
	laptop = here.login(t, adaSignsIn)
	if a := here.do(t, "POST", "/logout", "", "Authorization", "Bearer "+laptop.AccessToken); a.status != http.StatusNoContent {
		t.Fatalf("%d %s", a.status, a.body)
	}
	there.refusedWithinASecond(t, laptop.AccessToken)

	laptop = here.login(t, adaSignsIn)
	var log struct{ Data []securityEntryJSON }
	here.do(t, "GET", "/me/security", "", "Authorization", "Bearer "+laptop.AccessToken).decode(t, &log)
	var kinds []evently.SecurityKind
	for _, entry := range slices.Backward(log.Data) {
		kinds = append(kinds, entry.Kind)
	}
	want := []evently.SecurityKind{
		"registered", "code_sent", "email_verified", "signed_in", "signed_in", "password_changed", "code_sent", "password_reset",
		"signed_in", "signed_out", "signed_in",
	}
	if !slices.Equal(kinds, want) {
		t.Errorf("logged %q, want %q", kinds, want)
	}
}

// 100 clients, or 100 tries of one, refresh the same token at once: all are given the same next one, and it is good.
func TestAccountsOverPostgres_RefreshesAtOnceHaveOneWinner(t *testing.T) {
	// The nodes are in the middle of a rotation of the secret.
	b := newBureau(t, []Secret{testSecret, freshSecret}, []Secret{freshSecret, testSecret})
	b.nodes[0].register(t, adaRegisters)
	tokens := b.nodes[0].login(t, adaSignsIn)
	next := make(map[string]int)
	var last tokensJSON
	for _, a := range b.atOnce(t, 100, "/token/refresh", func(int) string { return refreshBody(tokens.RefreshToken) }) {
		if a.status != http.StatusOK {
			t.Fatalf("%d %s", a.status, a.body)
		}
		a.decode(t, &last)
		next[last.RefreshToken]++
	}
	if len(next) != 1 {
		t.Fatalf("%d next tokens: %v", len(next), next)
	}
	// It is used; now the first one is a copy in wrong hands, and both lines end.
	b.nodes[1].do(t, "POST", "/token/refresh", refreshBody(last.RefreshToken)).decode(t, &last)
	b.nodes[0].do(t, "POST", "/token/refresh", refreshBody(tokens.RefreshToken)).problem(t, evently.CodeUnauthenticated)
	for _, node := range b.nodes {
		node.refusedWithinASecond(t, last.AccessToken)
	}
	b.nodes[1].do(t, "POST", "/token/refresh", refreshBody(last.RefreshToken)).problem(t, evently.CodeUnauthenticated)
}

// 100 guesses at once, the right code among them: it is compared with five at the most.
func TestAccountsOverPostgres_CodeCannotBeGuessedAtOnce(t *testing.T) {
	b := newBureau(t, oneSecret)
	w := b.nodes[0]
	w.register(t, adaRegisters)
	code := b.mails.last(t, "ada@example.com", evently.VerifyEmailCode)
	guesses := make([]string, 100)
	for i := range guesses {
		guesses[i] = fmt.Sprintf("%06d", i)
	}
	if guesses[0] = code; slices.Contains(guesses[1:], code) {
		guesses[slices.Index(guesses[1:], code)+1] = "999999"
	}
	rand.Shuffle(len(guesses), func(i, j int) { guesses[i], guesses[j] = guesses[j], guesses[i] })
	verified := 0
	for _, a := range b.atOnce(t, len(guesses), "/verify", func(i int) string { return codeBody("ada@example.com", guesses[i]) }) {
		if a.status == http.StatusOK {
			verified++
		} else {
			a.problem(t, evently.CodeInvalidCode)
		}
	}
	var tries int
	const triesSQL = `select tries from one_time_codes`
	if err := b.pool.QueryRow(t.Context(), triesSQL).Scan(&tries); err != nil || tries > evently.CodeTriesMax || verified == 0 && tries != evently.CodeTriesMax {
		t.Errorf("%d tries, %v; %d succeeded", tries, err, verified)
	}
	if verified == 0 {
		w.do(t, "POST", "/verify", codeBody("ada@example.com", code)).problem(t, evently.CodeInvalidCode)
	}
}

// Of many wrong passwords at once, at two nodes, five are told that they are wrong, and then the right one is refused too.
func TestAccountsOverPostgres_PasswordsCannotBeGuessedAtOnce(t *testing.T) {
	b := newBureau(t, oneSecret, oneSecret)
	b.nodes[0].register(t, adaRegisters)
	session := b.nodes[0].login(t, adaSignsIn)
	for _, email := range []string{"ada@example.com", "nobody@example.com"} {
		told := 0
		for _, a := range b.atOnce(t, guessesAtOnce, "/login", func(i int) string {
			return fmt.Sprintf(`{"email":%q,"password":"wrong horse %d"}`, email, i)
		}) {
			if a.status == http.StatusUnauthorized {
				told++
			} else if a.problem(t, evently.CodeRateLimited); a.header.Get("Retry-After") != "15" {
				t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
			}
		}
		if told != evently.SignInFailuresMax {
			t.Errorf("%s: %d were told", email, told)
		}
	}
	b.nodes[1].do(t, "POST", "/login", adaSignsIn).problem(t, evently.CodeRateLimited)
	b.nodes[1].do(t, "POST", "/token/refresh", refreshBody(session.RefreshToken)).decode(t, &session)
	b.clock.add(evently.SignInDelayMin)
	b.nodes[1].login(t, adaSignsIn)
}

// Two administrators demote each other; rights follow the role on every node within a second.
func TestAccountsOverPostgres_Roles(t *testing.T) {
	b := newBureau(t, oneSecret, oneSecret)
	here, there := b.nodes[0], b.nodes[1]
	ada := here.register(t, adaRegisters)
	eve := here.register(t, `{"email":"eve@example.com","password":"correct horse","name":"Eve"}`)
	const eveSignsIn = `{"email":"eve@example.com","password":"correct horse"}`
	const promoteSQL = `update users set role = 2`
	if _, err := b.pool.Exec(t.Context(), promoteSQL); err != nil {
		t.Fatal(err)
	}
	adaTokens, eveTokens := here.login(t, adaSignsIn), there.login(t, eveSignsIn)
	demote := func(w *site, tokens tokensJSON, id string) (*answer, error) {
		return w.try(t.Context(), "PUT", "/admin/users/"+id+"/role", `{"role":"user"}`, "Authorization", "Bearer "+tokens.AccessToken)
	}
	answers, failures := make([]*answer, 2), make([]error, 2)
	var group sync.WaitGroup
	group.Go(func() { answers[0], failures[0] = demote(here, adaTokens, eve.ID) })
	group.Go(func() { answers[1], failures[1] = demote(there, eveTokens, ada.ID) })
	group.Wait()
	var demoted []int
	for i, a := range answers {
		if failures[i] != nil {
			t.Fatal(failures[i])
		}
		switch a.status {
		case http.StatusOK:
			demoted = append(demoted, i)
		case http.StatusConflict, http.StatusUnauthorized: // the other was faster
		default:
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if len(demoted) != 1 {
		t.Fatalf("%d demotions", len(demoted))
	}
	loser, body := eveTokens, eveSignsIn
	if demoted[0] == 1 {
		loser, body = adaTokens, adaSignsIn
	}
	for _, node := range b.nodes {
		node.refusedWithinASecond(t, loser.AccessToken)
	}
	loser = there.login(t, body)
	there.do(t, "GET", "/admin/users", "", "Authorization", "Bearer "+loser.AccessToken).problem(t, evently.CodeForbidden)
}

// The secret is rotated: tokens of the past one are good until it is dropped, and new ones are of the first.
func TestAccountsOverPostgres_SecretsRotate(t *testing.T) {
	b := newBureau(t, oneSecret, []Secret{freshSecret, testSecret}, []Secret{freshSecret})
	before, during, after := b.nodes[0], b.nodes[1], b.nodes[2]
	before.register(t, adaRegisters)
	old := before.login(t, adaSignsIn)
	me := func(w *site, tokens tokensJSON) *answer {
		return w.do(t, "GET", "/me", "", "Authorization", "Bearer "+tokens.AccessToken)
	}
	if a := me(during, old); a.status != http.StatusOK {
		t.Errorf("a token of the past secret: %d %s", a.status, a.body)
	}
	fresh := during.login(t, adaSignsIn)
	if a := me(after, fresh); a.status != http.StatusOK {
		t.Errorf("a token of the new secret: %d %s", a.status, a.body)
	}
	me(before, fresh).problem(t, evently.CodeUnauthenticated)
	me(after, old).problem(t, evently.CodeUnauthenticated)
	// A session goes on: its refresh token is good whatever the secret.
	after.do(t, "POST", "/token/refresh", refreshBody(old.RefreshToken)).decode(t, &old)
	if a := me(after, old); a.status != http.StatusOK {
		t.Errorf("after the rotation: %d %s", a.status, a.body)
	}
	// A code that was mailed before is good as long as its secret is known.
	code := b.mails.last(t, "ada@example.com", evently.VerifyEmailCode)
	after.do(t, "POST", "/verify", codeBody("ada@example.com", code)).problem(t, evently.CodeInvalidCode)
	if a := during.do(t, "POST", "/verify", codeBody("ada@example.com", code)); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// A mail that cannot be queued leaves no user behind, and tells nothing else.
func TestAccountsOverPostgres_NothingHalf(t *testing.T) {
	pool, err := store.Open(t.Context(), pgtest.Database(t), store.PoolOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	w := newSite(t, func(config *Config) { config.Accounts = store.NewAccounts(pool, brokenQueue{}) })
	w.do(t, "POST", "/register", adaRegisters).problem(t, evently.CodeUnavailable)
	const countSQL = `select (select count(*) from users) + (select count(*) from one_time_codes) + (select count(*) from security_log)`
	var rows int
	if err := pool.QueryRow(t.Context(), countSQL).Scan(&rows); err != nil || rows != 0 {
		t.Errorf("%d rows, %v", rows, err)
	}
}

type brokenQueue struct{}

func (brokenQueue) EnqueueCode(context.Context, pgx.Tx, *evently.CodeMail) error {
	return evently.ErrUnavailable
}

// The log can be added to, and not be changed.
func TestAccountsOverPostgres_SecurityLogIsAppendOnly(t *testing.T) {
	b := newBureau(t, oneSecret)
	b.nodes[0].register(t, adaRegisters)
	for _, statement := range []string{
		`update security_log set kind = 'signed_in'`, `delete from security_log`, `truncate security_log`,
	} {
		if _, err := b.pool.Exec(t.Context(), statement); err == nil {
			t.Errorf("%s: succeeded", statement)
		}
	}
}
