// All that is served besides SOAP: files of datastores, NFC leases, the tagging service.
package simulator

import (
	"io"
	"log"
	"net/http"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const restSession = "vmware-api-session-id"

// VadpHandler stands before the stock simulator's handler.
func VadpHandler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, folderPrefix):
			serveFolder(w, r)
		case strings.HasPrefix(r.URL.Path, nfcPrefix):
			serveNFC(w, r)
		case strings.HasPrefix(r.URL.Path, "/rest/"):
			serveREST(w, r, next)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// noted records a request and applies the test's rules to it: whether to go on.
func noted(w http.ResponseWriter, method, target, detail string) bool {
	defer Enter()()
	record(method, target, "", detail)
	answered, _ := spoiled(w, method, "")
	return !answered
}

// loggedIn says whether a request for files has a SOAP session's cookie or the user's password.
func loggedIn(r *http.Request) bool {
	if c, err := r.Cookie(soap.SessionCookieName); err == nil {
		_, ok := Map.SessionManager().getSession(c.Value)
		return ok
	}
	return rightPassword(r)
}

func rightPassword(r *http.Request) bool {
	user, password, ok := r.BasicAuth()
	return ok && user == vadp.user && password == vadp.password
}

func serveFolder(w http.ResponseWriter, r *http.Request) {
	method := r.Method + " /folder"
	p := strings.TrimPrefix(r.URL.Path, folderPrefix)
	query := r.URL.Query()
	if !noted(w, method, "["+query.Get("dsName")+"] "+p, r.Header.Get("Range")) {
		return
	}
	leave := Enter()
	allowed, granted := loggedIn(r), vadpGranted(privileges[method])
	file := ""
	if Map.FindByName(path.Base(query.Get("dcPath")), datacenters()) != nil {
		file = dsFile("[" + query.Get("dsName") + "] " + p)
	}
	locked := vadp.liveLocked && isLive(file)
	leave()
	switch {
	case !allowed:
		w.Header().Set("WWW-Authenticate", `Basic realm="VMware HTTP server"`)
		w.WriteHeader(http.StatusUnauthorized)
	case !granted:
		w.WriteHeader(http.StatusForbidden)
	case file == "":
		http.NotFound(w, r)
	case locked:
		http.Error(w, "the file is locked", http.StatusInternalServerError)
	case r.Method == http.MethodPut || r.Method == http.MethodPost:
		receive(w, r, file)
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		send(w, r, file)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

// isLive says whether a running VM writes the file, so that on VMFS its host has it locked.
func isLive(file string) bool {
	for _, e := range Map.All("VirtualMachine") {
		vm, ok := e.(*VirtualMachine)
		if !ok || vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
			continue
		}
		for _, d := range vmDisks(vm.Config.Hardware.Device) {
			if b := back(d); b != nil && flat(b.FileName) == file {
				return true
			}
		}
	}
	return false
}

func receive(w http.ResponseWriter, r *http.Request, file string) {
	_, err := os.Stat(file)
	if err == nil && r.Method == http.MethodPost {
		w.WriteHeader(http.StatusConflict)
		return
	}
	status := http.StatusOK
	if err != nil {
		status = http.StatusCreated
	}
	f, err := os.Create(file)
	if err == nil {
		_, err = io.Copy(f, r.Body)
		f.Close()
	}
	switch {
	case os.IsNotExist(err):
		status = http.StatusNotFound // of the folder
	case err != nil:
		log.Printf("PUT %s: %s", file, err)
		status = http.StatusInternalServerError
	}
	w.WriteHeader(status)
}

func send(w http.ResponseWriter, r *http.Request, file string) {
	f, err := os.Open(file)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || st.IsDir() {
		http.NotFound(w, r)
		return
	}
	if r.Method == http.MethodGet {
		start, end := asked(r.Header.Get("Range"), st.Size())
		leave := Enter()
		bad := readFault(file, start, end)
		leave()
		if bad != nil && !bad.Cut {
			http.Error(w, "cannot read "+path.Base(file), http.StatusInternalServerError)
			return
		}
		if bad != nil {
			w = &cutWriter{w, bad.Offset - start}
		}
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", st.ModTime(), f)
}

var byteRange = regexp.MustCompile(`^bytes=(\d+)-(\d*)$`)

// asked is the range of a plain Range header, the whole file without one.
func asked(header string, size int64) (start, end int64) {
	m := byteRange.FindStringSubmatch(header)
	if m == nil {
		return 0, size
	}
	start, _ = strconv.ParseInt(m[1], 10, 64)
	end, err := strconv.ParseInt(m[2], 10, 64)
	if err != nil || end >= size {
		end = size - 1
	}
	return start, end + 1
}

// readRule makes one byte of some files unreadable.
type readRule struct {
	rule
	Path   string
	Offset int64
	Cut    bool
}

func readFault(file string, start, end int64) *readRule {
	for _, r := range vadp.reads {
		if strings.Contains(file, r.Path) && start <= r.Offset && r.Offset < end && r.hits("", "") {
			return r
		}
	}
	return nil
}

// cutWriter ends the connection after so many bytes.
type cutWriter struct {
	http.ResponseWriter
	left int64
}

func (c *cutWriter) Write(p []byte) (int, error) {
	if int64(len(p)) > c.left {
		_, _ = c.ResponseWriter.Write(p[:c.left])
		if f, ok := c.ResponseWriter.(http.Flusher); ok {
			f.Flush()
		}
		panic(http.ErrAbortHandler)
	}
	c.left -= int64(len(p))
	return c.ResponseWriter.Write(p)
}

// serveREST adds to the stock tagging service that a password must be right and a session may end.
func serveREST(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if !noted(w, r.Method+" /rest", r.URL.Path, r.URL.RawQuery) {
		return
	}
	id := r.Header.Get(restSession)
	if c, err := r.Cookie(restSession); id == "" && err == nil {
		id = c.Value
	}
	leave := Enter()
	login := strings.HasSuffix(r.URL.Path, "/cis/session") && r.Method == http.MethodPost && r.URL.RawQuery == ""
	alive, known := vadp.rest[id]
	if known && !alive || login && !rightPassword(r) {
		leave()
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	leave()
	next.ServeHTTP(w, r)
	if c := strings.SplitN(w.Header().Get("Set-Cookie"), ";", 2)[0]; strings.HasPrefix(c, restSession+"=") {
		id = strings.TrimPrefix(c, restSession+"=")
	}
	defer Enter()()
	if _, known := vadp.rest[id]; id != "" && !known {
		vadp.rest[id] = true
	}
}

func expireSessions() {
	m := Map.SessionManager()
	sessionMutex.Lock()
	m.sessions = map[string]Session{}
	sessionMutex.Unlock()
	for id := range vadp.rest {
		vadp.rest[id] = false
	}
}
