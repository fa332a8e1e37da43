// VADP behaviour for the govmomi 0.24.2 simulator.  Compiled INTO package
// simulator by "go build -overlay" (see build.sh), so methods go straight on
// the simulator's own types; dispatch is reflect.MethodByName, so a method that
// exists is a SOAP method that works.
package simulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const grain = 64 << 10 // CBT granularity reported

// VadpMaxAreas caps the areas of one QueryChangedDiskAreas answer, to force the caller's loop.
var VadpMaxAreas = 2000

type cbt struct {
	uuid string
	seq  int
}

type injected struct {
	Vm, Method, Fault, Msg string
	Count                  int
	Soap                   bool // SOAP fault of the call, not the task's error
}

var vadp = struct {
	sync.Mutex
	cbt    map[string]*cbt // "vm-57/2000"
	inject []*injected
}{cbt: map[string]*cbt{}}

func vadpFault(ref types.ManagedObjectReference, method string, soapLevel bool) (types.BaseMethodFault, string) {
	vadp.Lock()
	defer vadp.Unlock()
	for i, in := range vadp.inject {
		if in.Soap != soapLevel || in.Method != method || (in.Vm != "" && in.Vm != ref.Value) {
			continue
		}
		if in.Count--; in.Count <= 0 {
			vadp.inject = append(vadp.inject[:i], vadp.inject[i+1:]...)
		}
		if t, ok := types.TypeFunc()(in.Fault); ok {
			v := reflect.New(t)
			for _, n := range []string{"Object", "Obj"} { // pyvmomi cannot read an empty moref
				if x := v.Elem().FieldByName(n); x.IsValid() && x.Type() == reflect.TypeOf(ref) {
					x.Set(reflect.ValueOf(ref))
				}
			}
			if f, ok := v.Interface().(types.BaseMethodFault); ok {
				return f, in.Msg
			}
		}
		return &types.RuntimeFault{}, in.Msg
	}
	return nil, ""
}

// called from the patched Service.call and CreateTask
func vadpCall(m *Method) soap.HasFault {
	if f, msg := vadpFault(m.This, m.Name, true); f != nil {
		return &serverFaultBody{Reason: Fault(msg, f)}
	}
	return nil
}

func vadpTask(ref types.ManagedObjectReference, name string, run func(*Task) (types.AnyType, types.BaseMethodFault)) func(*Task) (types.AnyType, types.BaseMethodFault) {
	return func(t *Task) (types.AnyType, types.BaseMethodFault) {
		if f, _ := vadpFault(ref, ucFirst(strings.TrimSuffix(name, "_Task"))+"_Task", false); f != nil {
			return nil, f
		}
		return run(t)
	}
}

// called from the patched ServeDatastore, which asks for no login in the stock simulator
func vadpAuth(s *Service, r *http.Request) bool {
	if c, err := r.Cookie(soap.SessionCookieName); err == nil {
		_, ok := s.sm.getSession(c.Value)
		return ok
	}
	user, pass, ok := r.BasicAuth()
	want, _ := s.Listen.User.Password()
	return ok && user == s.Listen.User.Username() && pass == want
}

// ---- files

func dsFile(p string) string { // "[ds] a/b.vmdk" -> local path
	var d object.DatastorePath
	d.FromString(p)
	for _, e := range Map.All("Datastore") {
		if e.Entity().Name == d.Datastore {
			return path.Join(e.(*Datastore).Info.GetDatastoreInfo().Url, d.Path)
		}
	}
	return ""
}

func flat(p string) string { return strings.TrimSuffix(dsFile(p), ".vmdk") + "-flat.vmdk" }

func clone(src, dst string) error {
	_ = os.MkdirAll(path.Dir(dst), 0755)
	out, err := exec.Command("cp", "--reflink=auto", "--sparse=always", src, dst).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %s", err, out)
	}
	return nil
}

func writeDescriptor(fileName string, size int64, parent string) {
	ct, pcid, hint := "vmfs", "ffffffff", ""
	if parent != "" {
		pcid, hint = "fffffffe", fmt.Sprintf("parentFileNameHint=\"%s\"\n", path.Base(dsFile(parent)))
	}
	_ = os.WriteFile(dsFile(fileName), []byte(fmt.Sprintf("# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=fffffffe\nparentCID=%s\ncreateType=\"%s\"\n%s\n# Extent description\nRW %d VMFS \"%s\"\n\n# The Disk Data Base\n#DDB\n\nddb.adapterType = \"lsilogic\"\nddb.geometry.cylinders = \"%d\"\nddb.geometry.heads = \"255\"\nddb.geometry.sectors = \"63\"\nddb.virtualHWVersion = \"13\"\n",
		pcid, ct, hint, size/512, path.Base(flat(fileName)), size/512/255/63)), 0644)
}

func cbtFile(fileName, changeID string) string {
	return path.Join(path.Dir(dsFile(fileName)), ".vadp", strings.NewReplacer("/", "_", " ", "").Replace(changeID))
}

// ---- CBT and snapshots

func vmDisks(devices []types.BaseVirtualDevice) []*types.VirtualDisk {
	var res []*types.VirtualDisk
	for _, d := range devices {
		if x, ok := d.(*types.VirtualDisk); ok {
			res = append(res, x)
		}
	}
	return res
}

func back(d *types.VirtualDisk) *types.VirtualDiskFlatVer2BackingInfo {
	b, _ := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	return b
}

func copyDevices(devices []types.BaseVirtualDevice) []types.BaseVirtualDevice {
	res := append([]types.BaseVirtualDevice{}, devices...)
	for i, d := range res {
		if x, ok := d.(*types.VirtualDisk); ok && back(x) != nil {
			disk, b := *x, *back(x)
			disk.Backing = &b
			res[i] = &disk
		}
	}
	return res
}

func (vm *VirtualMachine) newChangeID(d *types.VirtualDisk) string {
	vadp.Lock()
	defer vadp.Unlock()
	k := fmt.Sprintf("%s/%d", vm.Self.Value, d.Key)
	c := vadp.cbt[k]
	if c == nil {
		u := strings.Replace(uuid.New().String(), "-", "", -1)
		var p []string
		for i := 0; i < 32; i += 2 {
			p = append(p, u[i:i+2])
		}
		c = &cbt{uuid: strings.Join(p[:8], " ") + "-" + strings.Join(p[8:], " ")}
		vadp.cbt[k] = c
	}
	c.seq++
	return fmt.Sprintf("%s/%d", c.uuid, c.seq)
}

func (vm *VirtualMachine) makeSnapshot(name, desc string, quiesced bool) (types.AnyType, types.BaseMethodFault) {
	info := &types.VirtualMachineSnapshotInfo{}
	if vm.Snapshot != nil {
		*info = *vm.Snapshot
	}
	n := atomic.AddInt32(&vm.sid, 1)
	devices := copyDevices(vm.Config.Hardware.Device)
	for _, d := range vmDisks(devices) {
		b := back(d)
		if b == nil || strings.HasPrefix(b.DiskMode, "independent") {
			continue
		}
		base := *b
		child := regexp.MustCompile(`(-\d{6})?\.vmdk$`).ReplaceAllString(b.FileName, fmt.Sprintf("-%06d.vmdk", n))
		if err := clone(flat(b.FileName), flat(child)); err != nil {
			return nil, &types.FileFault{File: err.Error()}
		}
		if st, err := os.Stat(flat(child)); err == nil {
			writeDescriptor(child, st.Size(), b.FileName)
		}
		if isTrue(vm.Config.ChangeTrackingEnabled) {
			base.ChangeId = vm.newChangeID(d)
			if err := clone(flat(b.FileName), cbtFile(b.FileName, base.ChangeId)); err != nil {
				return nil, &types.FileFault{File: err.Error()}
			}
		}
		for _, s := range vmDisks(vm.Config.Hardware.Device) { // the live disk keeps its key
			if s.Key == d.Key {
				back(s).ChangeId = base.ChangeId // vm.Config becomes the snapshot's view
			}
		}
		b.FileName, b.Parent, b.ChangeId = child, &base, base.ChangeId
	}
	snapshot := &VirtualMachineSnapshot{}
	snapshot.Vm = vm.Self
	snapshot.Config = *vm.Config // old devices: frozen base files
	Map.Put(snapshot)
	hw := vm.Config.Hardware
	hw.Device = devices

	item := types.VirtualMachineSnapshotTree{Snapshot: snapshot.Self, Vm: vm.Self, Name: name, Description: desc, Id: n,
		CreateTime: time.Now(), State: vm.Runtime.PowerState, Quiesced: quiesced, ReplaySupported: types.NewBool(false)}
	if cur := info.CurrentSnapshot; cur != nil {
		parent := Map.Get(*cur).(*VirtualMachineSnapshot)
		parent.ChildSnapshot = append(parent.ChildSnapshot, snapshot.Self)
		ss := findSnapshotInTree(info.RootSnapshotList, *cur)
		ss.ChildSnapshotList = append(ss.ChildSnapshotList, item)
	} else {
		info.RootSnapshotList = append(info.RootSnapshotList, item)
	}
	info.CurrentSnapshot = &snapshot.Self
	if vm.Snapshot == nil {
		vm.Snapshot = &types.VirtualMachineSnapshotInfo{}
	}
	Map.Update(vm, []types.PropertyChange{{Name: "config.hardware", Val: hw}, {Name: "snapshot", Val: info},
		{Name: "rootSnapshot", Val: []types.ManagedObjectReference{info.RootSnapshotList[0].Snapshot}}})
	return snapshot.Self, nil
}

func (vm *VirtualMachine) CreateSnapshotTask(req *types.CreateSnapshot_Task) soap.HasFault {
	task := CreateTask(vm, "createSnapshot", func(*Task) (types.AnyType, types.BaseMethodFault) {
		return vm.makeSnapshot(req.Name, req.Description, req.Quiesce)
	})
	return &methods.CreateSnapshot_TaskBody{Res: &types.CreateSnapshot_TaskResponse{Returnval: task.Run()}}
}

func (vm *VirtualMachine) CreateSnapshotExTask(req *types.CreateSnapshotEx_Task) soap.HasFault {
	task := CreateTask(vm, "createSnapshotEx", func(*Task) (types.AnyType, types.BaseMethodFault) {
		return vm.makeSnapshot(req.Name, req.Description, req.QuiesceSpec != nil)
	})
	return &methods.CreateSnapshotEx_TaskBody{Res: &types.CreateSnapshotEx_TaskResponse{Returnval: task.Run()}}
}

// merge the child of file into file, in every view (live and snapshots) of the VM
func (vm *VirtualMachine) merge(file string) {
	views := [][]types.BaseVirtualDevice{vm.Config.Hardware.Device}
	if vm.Snapshot != nil {
		for _, ref := range allSnapshotsInTree(vm.Snapshot.RootSnapshotList) {
			views = append(views, Map.Get(ref).(*VirtualMachineSnapshot).Config.Hardware.Device)
		}
	}
	done := map[string]bool{}
	for _, v := range views {
		for _, d := range vmDisks(v) {
			for b := back(d); b != nil; b = b.Parent {
				if b.Parent == nil || b.Parent.FileName != file {
					continue
				}
				if !done[b.FileName] {
					done[b.FileName] = true
					_ = os.Rename(flat(b.FileName), flat(file))
					_ = os.Remove(dsFile(b.FileName))
				}
				b.FileName, b.Parent = file, b.Parent.Parent
			}
		}
	}
}

func (vm *VirtualMachine) needs(consolidation bool) types.PropertyChange {
	rt := vm.Runtime
	rt.ConsolidationNeeded = types.NewBool(consolidation)
	return types.PropertyChange{Name: "runtime", Val: rt}
}

func (v *VirtualMachineSnapshot) RemoveSnapshotTask(ctx *Context, req *types.RemoveSnapshot_Task) soap.HasFault {
	vm := Map.Get(v.Vm).(*VirtualMachine)
	// Entity is the VM: pyvmomi rejects a TaskInfo.entity that is no ManagedEntity
	task := CreateTask(vm, "removeSnapshot", func(*Task) (types.AnyType, types.BaseMethodFault) {
		Map.WithLock(vm, func() {
			consolidate := req.Consolidate == nil || *req.Consolidate
			if consolidate {
				for _, d := range vmDisks(v.Config.Hardware.Device) {
					vm.merge(back(d).FileName)
				}
			}
			cur := vm.Snapshot.CurrentSnapshot
			if cur != nil && *cur == v.Self {
				cur = findParentSnapshotInTree(vm.Snapshot.RootSnapshotList, v.Self)
			}
			roots := removeSnapshotInTree(vm.Snapshot.RootSnapshotList, v.Self, req.RemoveChildren)
			ch := []types.PropertyChange{vm.needs(!consolidate), {Name: "config.hardware", Val: vm.Config.Hardware}}
			if len(roots) == 0 {
				ch = append(ch, types.PropertyChange{Name: "snapshot", Val: nil})
			} else {
				ch = append(ch, types.PropertyChange{Name: "snapshot", Val: &types.VirtualMachineSnapshotInfo{CurrentSnapshot: cur, RootSnapshotList: roots}})
			}
			Map.Update(vm, ch)
		})
		Map.Remove(v.Self)
		return nil, nil
	})
	return &methods.RemoveSnapshot_TaskBody{Res: &types.RemoveSnapshot_TaskResponse{Returnval: task.Run()}}
}

func (vm *VirtualMachine) ConsolidateVMDisksTask(req *types.ConsolidateVMDisks_Task) soap.HasFault {
	task := CreateTask(vm, "consolidateVMDisks", func(*Task) (types.AnyType, types.BaseMethodFault) {
		for _, d := range vmDisks(vm.Config.Hardware.Device) {
			for vm.Snapshot == nil && back(d).Parent != nil {
				vm.merge(back(d).Parent.FileName)
			}
		}
		Map.Update(vm, []types.PropertyChange{vm.needs(false), {Name: "config.hardware", Val: vm.Config.Hardware}})
		return nil, nil
	})
	return &methods.ConsolidateVMDisks_TaskBody{Res: &types.ConsolidateVMDisks_TaskResponse{Returnval: task.Run()}}
}

func (vm *VirtualMachine) QueryChangedDiskAreas(req *types.QueryChangedDiskAreas) soap.HasFault {
	body := &methods.QueryChangedDiskAreasBody{}
	devices := vm.Config.Hardware.Device
	if req.Snapshot != nil {
		s, ok := Map.Get(*req.Snapshot).(*VirtualMachineSnapshot)
		if !ok {
			body.Fault_ = Fault("", &types.ManagedObjectNotFound{Obj: *req.Snapshot})
			return body
		}
		devices = s.Config.Hardware.Device
	}
	var disk *types.VirtualDisk
	for _, d := range vmDisks(devices) {
		if d.Key == req.DeviceKey {
			disk = d
		}
	}
	bad := func(prop string) soap.HasFault {
		body.Fault_ = Fault("A specified parameter was not correct: "+prop, &types.InvalidArgument{InvalidProperty: prop})
		return body
	}
	if disk == nil {
		return bad("deviceKey")
	}
	if back(disk).ChangeId == "" || !isTrue(vm.Config.ChangeTrackingEnabled) {
		body.Fault_ = Fault("change tracking is not active", &types.FileFault{File: back(disk).FileName})
		return body
	}
	f, err := os.Open(flat(back(disk).FileName))
	if err != nil {
		body.Fault_ = Fault(err.Error(), &types.FileFault{File: back(disk).FileName})
		return body
	}
	defer f.Close()
	st, _ := f.Stat()
	if req.StartOffset < 0 || req.StartOffset >= st.Size() {
		return bad("startOffset")
	}
	var old *os.File
	if req.ChangeId != "*" { // known only while the CBT epoch (uuid) is the same
		cur, want := strings.Split(back(disk).ChangeId, "/"), strings.Split(req.ChangeId, "/")
		if cur[0] == want[0] {
			old, _ = os.Open(cbtFile(back(disk).FileName, req.ChangeId))
		}
		if old == nil {
			body.Fault_ = Fault("Error caused by file "+dsFile(back(disk).FileName), &types.FileFault{File: dsFile(back(disk).FileName)})
			return body
		}
		defer old.Close()
	}
	a, b := make([]byte, grain), make([]byte, grain)
	var areas []types.DiskChangeExtent
	off := req.StartOffset / grain * grain
	for ; off < st.Size(); off += grain {
		n, _ := f.ReadAt(a, off)
		changed := false
		if old == nil {
			changed = allocated(f, off, int64(n))
		} else {
			m, _ := old.ReadAt(b, off)
			changed = !bytes.Equal(a[:n], b[:m])
		}
		if !changed {
			continue
		}
		if k := len(areas) - 1; k >= 0 && areas[k].Start+areas[k].Length == off {
			areas[k].Length += int64(n)
			continue
		}
		if len(areas) == VadpMaxAreas {
			break
		}
		areas = append(areas, types.DiskChangeExtent{Start: off, Length: int64(n)})
	}
	end := off
	if end > st.Size() {
		end = st.Size()
	}
	body.Res = &types.QueryChangedDiskAreasResponse{Returnval: types.DiskChangeInfo{StartOffset: req.StartOffset, Length: end - req.StartOffset, ChangedArea: areas}}
	return body
}

func allocated(f *os.File, off, n int64) bool {
	p, err := f.Seek(off, 3 /* SEEK_DATA */)
	return err == nil && p < off+n
}

// ---- questions

func (vm *VirtualMachine) AnswerVM(req *types.AnswerVM) soap.HasFault {
	body := &methods.AnswerVMBody{}
	q := vm.Runtime.Question
	if q == nil || q.Id != req.QuestionId {
		body.Fault_ = Fault("", &types.InvalidArgument{InvalidProperty: "questionId"})
		return body
	}
	Map.Update(vm, []types.PropertyChange{{Name: "runtime.question", Val: nil}})
	body.Res = &types.AnswerVMResponse{}
	return body
}

// ---- NFC export and import (streamOptimized VMDK made and read by qemu-img)

func nfcDevices(ctx *Context, vm *VirtualMachine, devices []types.BaseVirtualDevice, export bool) types.ManagedObjectReference {
	lease := NewHttpNfcLease(ctx, vm.Self)
	ref := lease.Reference()
	lease.Info.Lease = ref
	for i, d := range vmDisks(devices) {
		name := fmt.Sprintf("disk-%d.vmdk", i)
		lease.files[name] = flat(back(d).FileName)
		lease.Info.DeviceUrl = append(lease.Info.DeviceUrl, types.HttpNfcLeaseDeviceUrl{
			Key: fmt.Sprintf("/%s/VirtualDisk%d:%d", vm.Self.Value, 0, i), TargetId: name, Disk: types.NewBool(true),
			Url: (&url.URL{Scheme: "https", Host: ctx.svc.Listen.Host, Path: nfcPrefix + path.Join(ref.Value, name)}).String()})
	}
	return ref
}

func (vm *VirtualMachine) ExportVm(ctx *Context, req *types.ExportVm) soap.HasFault {
	body := &methods.ExportVmBody{}
	if vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff {
		body.Fault_ = Fault("", &types.InvalidPowerState{RequestedState: "poweredOff", ExistingState: vm.Runtime.PowerState})
		return body
	}
	body.Res = &types.ExportVmResponse{Returnval: nfcDevices(ctx, vm, vm.Config.Hardware.Device, true)}
	return body
}

func (v *VirtualMachineSnapshot) ExportSnapshot(ctx *Context, req *types.ExportSnapshot) soap.HasFault {
	return &methods.ExportSnapshotBody{Res: &types.ExportSnapshotResponse{
		Returnval: nfcDevices(ctx, Map.Get(v.Vm).(*VirtualMachine), v.Config.Hardware.Device, true)}}
}

// vadpNFC replaces the body copy of ServeNFC, which discards uploads and panics on GET
func vadpNFC(w http.ResponseWriter, r *http.Request, file string) {
	tmp := filepath.Join(os.TempDir(), "nfc-"+uuid.New().String()+".vmdk")
	defer os.Remove(tmp)
	var cmd *exec.Cmd
	if r.Method == http.MethodGet {
		cmd = exec.Command("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", file, tmp)
	} else {
		f, err := os.Create(tmp)
		if err == nil {
			_, err = io.Copy(f, r.Body)
			f.Close()
		}
		if !strings.HasSuffix(file, "-flat.vmdk") {
			file = strings.TrimSuffix(file, ".vmdk") + "-flat.vmdk"
		}
		cmd = exec.Command("qemu-img", "convert", "-f", "vmdk", "-O", "raw", tmp, file)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		http.Error(w, string(out), http.StatusInternalServerError)
		return
	}
	if r.Method == http.MethodGet {
		f, _ := os.Open(tmp)
		defer f.Close()
		w.Header().Set("Content-Type", "application/x-vnd.vmware-streamVmdk")
		_, _ = io.Copy(w, f) // chunked, no Range: as the real NFC service
	}
}

// ---- registering a VM: the disks its .vmx names; NFS mounts; storage vMotion

func vadpVMX(p string) []types.BaseVirtualDeviceConfigSpec {
	data, err := os.ReadFile(dsFile(p))
	if err != nil {
		return nil
	}
	scsi := &types.ParaVirtualSCSIController{}
	scsi.Key, scsi.BusNumber, scsi.SharedBus = 1000, 0, types.VirtualSCSISharingNoSharing
	res := []types.BaseVirtualDeviceConfigSpec{&types.VirtualDeviceConfigSpec{Operation: "add", Device: scsi}}
	dir := p[:strings.LastIndex(p, "/")]
	for i, m := range regexp.MustCompile(`(?mi)^\s*scsi0:(\d+)\.fileName\s*=\s*"([^"]+\.vmdk)"`).FindAllStringSubmatch(string(data), -1) {
		var unit int32
		fmt.Sscan(m[1], &unit)
		d := &types.VirtualDisk{}
		d.Key, d.ControllerKey, d.UnitNumber = int32(2000+i), 1000, &unit
		d.Backing = &types.VirtualDiskFlatVer2BackingInfo{DiskMode: "persistent",
			VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: dir + "/" + m[2]}}
		if st, err := os.Stat(flat(dir + "/" + m[2])); err == nil {
			d.CapacityInBytes, d.CapacityInKB = st.Size(), st.Size()/1024
		}
		res = append(res, &types.VirtualDeviceConfigSpec{Operation: "add", Device: d})
	}
	return res
}

func vadpNas(s types.HostNasVolumeSpec) string { // the exported folder itself, when it is on this machine
	if st, err := os.Stat(s.RemotePath); err == nil && st.IsDir() && !path.IsAbs(s.LocalPath) {
		return s.RemotePath
	}
	return s.LocalPath
}

func (vm *VirtualMachine) RelocateVMTask(ctx *Context, req *types.RelocateVM_Task) soap.HasFault {
	var f types.BaseMethodFault
	if ref := req.Spec.Datastore; ref != nil {
		ds := Map.Get(*ref).(*Datastore)
		for _, d := range vmDisks(vm.Config.Hardware.Device) {
			var p object.DatastorePath
			p.FromString(back(d).FileName)
			dst := object.DatastorePath{Datastore: ds.Name, Path: p.Path}
			if dst.String() == back(d).FileName {
				continue
			}
			if err := clone(flat(back(d).FileName), flat(dst.String())); err != nil {
				f = &types.FileFault{File: err.Error()}
				break
			}
			st, _ := os.Stat(flat(dst.String()))
			writeDescriptor(dst.String(), st.Size(), "")
			_, _ = os.Remove(flat(back(d).FileName)), os.Remove(dsFile(back(d).FileName))
			back(d).FileName, back(d).Datastore, back(d).ChangeId = dst.String(), ref, ""
			vadp.Lock()
			delete(vadp.cbt, fmt.Sprintf("%s/%d", vm.Self.Value, d.Key)) // CBT is reset
			vadp.Unlock()
		}
	}
	if f != nil {
		t := CreateTask(vm, "relocateVm", func(*Task) (types.AnyType, types.BaseMethodFault) { return nil, f })
		return &methods.RelocateVM_TaskBody{Res: &types.RelocateVM_TaskResponse{Returnval: t.Run()}}
	}
	return vm.stockRelocateVMTask(ctx, req)
}

// ---- control: one JSON request a line

// VadpControl answers one request of the test that drives this simulator.
func VadpControl(line []byte) interface{} {
	var c struct {
		Op, Image, Text, Path string
		Key                   int32
		Areas                 int
		injected
	}
	if err := json.Unmarshal(line, &c); err != nil {
		return map[string]string{"error": err.Error()}
	}
	vm, _ := Map.Get(types.ManagedObjectReference{Type: "VirtualMachine", Value: c.Vm}).(*VirtualMachine)
	reply := map[string]interface{}{}
	switch c.Op {
	case "fault":
		vadp.Lock()
		in := c.injected
		vadp.inject = append(vadp.inject, &in)
		vadp.Unlock()
	case "vms":
		var all []string
		for _, e := range Map.All("VirtualMachine") {
			all = append(all, e.Reference().Value)
		}
		reply["vms"] = all
	case "file":
		reply["path"] = dsFile(c.Path)
	case "attach", "live":
		for _, d := range vmDisks(vm.Config.Hardware.Device) {
			if c.Key != 0 && d.Key != c.Key {
				continue
			}
			if c.Op == "attach" {
				if err := clone(c.Image, flat(back(d).FileName)); err != nil {
					return map[string]string{"error": err.Error()}
				}
				st, _ := os.Stat(c.Image)
				d.CapacityInBytes, d.CapacityInKB = st.Size(), st.Size()/1024
				writeDescriptor(back(d).FileName, st.Size(), "")
			}
			reply["path"], reply["key"] = flat(back(d).FileName), d.Key
			break
		}
	case "reset_cbt":
		vadp.Lock()
		for k := range vadp.cbt {
			if strings.HasPrefix(k, c.Vm+"/") {
				delete(vadp.cbt, k)
			}
		}
		vadp.Unlock()
	case "area_cap":
		VadpMaxAreas = c.Areas
	default:
		return map[string]string{"error": "unknown op " + c.Op}
	}
	return reply
}
