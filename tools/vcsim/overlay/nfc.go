// NFC leases: whole disks out and in, as streamOptimized VMDK that qemu-img makes and reads.
package simulator

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	leaseStart          = 10 * time.Millisecond
	defaultLeaseTimeout = 300 * time.Second
)

// vadpLease is called for each new lease: it is ready after a moment, and ends when its client has
// not told any progress for long.
func vadpLease(l *HttpNfcLease) {
	timeout := vadp.leaseTimeout
	l.State = types.HttpNfcLeaseStateInitializing
	l.Info.LeaseTimeout = int32((timeout + time.Second - 1) / time.Second)
	vadp.progress[l.Self] = time.Now()
	go func() {
		time.Sleep(leaseStart)
		leave := Enter()
		setLease(l, types.HttpNfcLeaseStateReady)
		leave()
		for alive := true; alive; {
			time.Sleep(timeout / 8)
			leave := Enter()
			_, alive = nfcLease.Load(l.Self)
			if alive && time.Since(vadp.progress[l.Self]) > timeout {
				nfcLease.Delete(l.Self)
				l.Error = &types.LocalizedMethodFault{Fault: new(types.Timedout), LocalizedMessage: "The lease has timed out."}
				setLease(l, types.HttpNfcLeaseStateError)
			}
			leave()
		}
		defer Enter()()
		delete(vadp.progress, l.Self)
	}()
}

func setLease(l *HttpNfcLease, state types.HttpNfcLeaseState) {
	Map.Update(l, []types.PropertyChange{{Name: "state", Val: state}})
}

// HttpNfcLeaseProgress keeps the lease.
func (l *HttpNfcLease) HttpNfcLeaseProgress(ctx *Context, req *types.HttpNfcLeaseProgress) soap.HasFault {
	vadp.progress[l.Self] = time.Now()
	return l.stockHttpNfcLeaseProgress(ctx, req)
}

// leaseWriter ends the connection when the lease has ended.
type leaseWriter struct {
	io.Writer
	lease types.ManagedObjectReference
}

func (w leaseWriter) Write(p []byte) (int, error) {
	if _, ok := nfcLease.Load(w.lease); !ok {
		panic(http.ErrAbortHandler)
	}
	return w.Writer.Write(p)
}

// lease offers the disks of a VM or of a snapshot, those in datastores only.
func lease(ctx *Context, vm *VirtualMachine, devices []types.BaseVirtualDevice) types.ManagedObjectReference {
	l := NewHttpNfcLease(ctx, vm.Self)
	ref := l.Reference()
	l.Info.Lease = ref
	list := object.VirtualDeviceList(devices)
	n := 0
	for _, d := range vmDisks(devices) {
		if back(d) == nil {
			continue
		}
		name := fmt.Sprintf("disk-%d.vmdk", n)
		n++
		l.files[name] = flat(back(d).FileName)
		l.Info.TotalDiskCapacityInKB += d.CapacityInKB
		l.Info.DeviceUrl = append(l.Info.DeviceUrl, types.HttpNfcLeaseDeviceUrl{
			Key:      fmt.Sprintf("/%s/%s", vm.Self.Value, address(list, d)),
			TargetId: name, Disk: types.NewBool(true),
			Url: (&url.URL{Scheme: "https", Host: ctx.svc.Listen.Host, Path: nfcPrefix + path.Join(ref.Value, name)}).String(),
		})
	}
	return ref
}

// address is a disk's place, as in "ParaVirtualSCSIController0:1".
func address(list object.VirtualDeviceList, d *types.VirtualDisk) string {
	bus, unit := int32(0), int32(0)
	kind := "VirtualController"
	if c, ok := list.FindByKey(d.ControllerKey).(types.BaseVirtualController); ok {
		bus, kind = c.GetVirtualController().BusNumber, list.TypeName(list.FindByKey(d.ControllerKey))
	}
	if d.UnitNumber != nil {
		unit = *d.UnitNumber
	}
	return fmt.Sprintf("%s%d:%d", kind, bus, unit)
}

// ExportVm is for powered-off VMs.
func (vm *VirtualMachine) ExportVm(ctx *Context, _ *types.ExportVm) soap.HasFault {
	body := &methods.ExportVmBody{}
	if vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff {
		body.Fault_ = Fault("", &types.InvalidPowerState{
			RequestedState: types.VirtualMachinePowerStatePoweredOff, ExistingState: vm.Runtime.PowerState,
		})
		return body
	}
	body.Res = &types.ExportVmResponse{Returnval: lease(ctx, vm, vm.Config.Hardware.Device)}
	return body
}

// ExportSnapshot is for running VMs too.
func (v *VirtualMachineSnapshot) ExportSnapshot(ctx *Context, _ *types.ExportSnapshot) soap.HasFault {
	ref := lease(ctx, Map.Get(v.Vm).(*VirtualMachine), v.Config.Hardware.Device)
	return &methods.ExportSnapshotBody{Res: &types.ExportSnapshotResponse{Returnval: ref}}
}

// vadpImport notes that a lease is an import: aborting it destroys what it was importing.
func vadpImport(ref types.ManagedObjectReference) types.ManagedObjectReference {
	vadp.imports[ref] = true
	return ref
}

// HttpNfcLeaseAbort replaces the stock one, which leaves a half imported VM.
func (l *HttpNfcLease) HttpNfcLeaseAbort(ctx *Context, req *types.HttpNfcLeaseAbort) soap.HasFault {
	if vm := virtualMachine(l.Info.Entity.Value); vm != nil && vadp.imports[req.This] {
		vm.DestroyTask(ctx, &types.Destroy_Task{This: vm.Self})
	}
	delete(vadp.imports, req.This)
	return l.stockHttpNfcLeaseAbort(ctx, req)
}

// serveNFC replaces the stock handler, which discards what is sent and panics on GET.
func serveNFC(w http.ResponseWriter, r *http.Request) {
	id, name := path.Base(path.Dir(r.URL.Path)), path.Base(r.URL.Path)
	if !noted(w, r.Method+" /nfc", name, id) {
		return
	}
	leave := Enter()
	file := ""
	ref := types.ManagedObjectReference{Type: "HttpNfcLease", Value: id}
	if l, ok := nfcLease.Load(ref); ok {
		file = l.(*HttpNfcLease).files[name]
	}
	leave()
	if file == "" {
		http.NotFound(w, r)
		return
	}
	if !strings.HasSuffix(file, "-flat.vmdk") {
		file = strings.TrimSuffix(file, ".vmdk") + "-flat.vmdk"
	}
	tmp := filepath.Join(os.TempDir(), "nfc-"+uuid.New().String()+".vmdk")
	defer os.Remove(tmp)
	switch r.Method {
	case http.MethodGet:
		export(w, r, ref, file, tmp)
	case http.MethodPost, http.MethodPut:
		importDisk(w, r, file, tmp)
	case http.MethodHead:
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

// export sends chunks without ranges, as the real service.
func export(w http.ResponseWriter, r *http.Request, lease types.ManagedObjectReference, file, tmp string) {
	cmd := exec.CommandContext(r.Context(), "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", file, tmp)
	if out, err := cmd.CombinedOutput(); err != nil {
		http.Error(w, string(out), http.StatusInternalServerError)
		return
	}
	f, err := os.Open(tmp)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/x-vnd.vmware-streamVmdk")
	st, disk := size(tmp), size(file)
	leave := Enter()
	bad := readFault(file, 0, disk)
	leave()
	if bad != nil && !bad.Cut {
		http.Error(w, "cannot read the disk", http.StatusInternalServerError)
		return
	}
	if bad != nil { // about there in the stream where the byte is in the disk
		w = &cutWriter{w, st * bad.Offset / disk}
	}
	_, _ = io.Copy(leaseWriter{w, lease}, f)
}

func size(file string) int64 {
	st, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return st.Size()
}

func importDisk(w http.ResponseWriter, r *http.Request, file, tmp string) {
	f, err := os.Create(tmp)
	if err == nil {
		_, err = io.Copy(f, r.Body)
		f.Close()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	cmd := exec.Command("qemu-img", "convert", "-f", "vmdk", "-O", "raw", tmp, file)
	if out, err := cmd.CombinedOutput(); err != nil {
		http.Error(w, string(out), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusCreated)
}
